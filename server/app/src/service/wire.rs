//! Messages that are encoded already: what a hundred watchers are sent is made once.
//!
//! Boundary: bytes in, bytes out; which message they are is in the type alone. The generated
//! servers encode a struct per watcher, so the rpcs that many watch are routed here, past them.

use std::{marker::PhantomData, sync::Arc};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::{BufMut as _, Bytes};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::Grpc,
};

use super::status;

/// A message of type `T` as its protobuf bytes.
pub struct Encoded<T> {
    bytes: Bytes,
    of: PhantomData<fn() -> T>,
}

/// What a streaming rpc answers.
pub type EncodedStream<T> = BoxStream<'static, Result<Encoded<T>, Status>>;

/// Writes [`Encoded`], reads `U`.
pub struct EncodedCodec<T, U>(PhantomData<fn() -> (T, U)>);

/// Half of [`EncodedCodec`].
pub struct EncodedEncoder<T>(PhantomData<fn() -> T>);

/// Half of [`EncodedCodec`].
pub struct MessageDecoder<U>(PhantomData<fn() -> U>);

impl<T: Message> Encoded<T> {
    /// Encodes a message.
    #[must_use]
    pub fn new(message: &T) -> Self {
        Self::raw(message.encode_to_vec().into())
    }
}

impl<T> Encoded<T> {
    /// Bytes that are a `T`.
    #[must_use]
    pub fn raw(bytes: Bytes) -> Self {
        Self {
            bytes,
            of: PhantomData,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// The typed form of a stream, for callers in this process.
pub fn decoded<T: Message + Default + 'static>(
    encoded: impl Stream<Item = Result<Encoded<T>, Status>> + Send + 'static,
) -> BoxStream<'static, Result<T, Status>> {
    let decode = |item: Result<Encoded<T>, Status>| {
        T::decode(item?.bytes).map_err(|error| status::undecodable(&error))
    };
    encoded.map(decode).boxed()
}

/// A route for a server-streaming rpc.
pub fn server_stream<T, U, F, Fut>(path: &str, limit: usize, call: F) -> Router
where
    T: 'static,
    U: Message + Default + 'static,
    F: Fn(tonic::Request<U>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<tonic::Response<EncodedStream<T>>, Status>> + Send + 'static,
{
    let call = Arc::new(call);
    Router::new().route(
        path,
        post(move |request: Request| serve(request, limit, call)),
    )
}

/// A route for a rpc that streams both ways.
pub fn both_ways<T, U, F, Fut>(path: &str, limit: usize, call: F) -> Router
where
    T: 'static,
    U: Message + Default + 'static,
    F: Fn(tonic::Request<tonic::Streaming<U>>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<tonic::Response<EncodedStream<T>>, Status>> + Send + 'static,
{
    let call = Arc::new(call);
    Router::new().route(
        path,
        post(move |request: Request| async move {
            let service = tower::service_fn(move |request| call(request));
            grpc(limit)
                .streaming(service, request)
                .await
                .into_response()
        }),
    )
}

async fn serve<T, U, F, Fut>(request: Request, limit: usize, call: Arc<F>) -> Response
where
    T: 'static,
    U: Message + Default + 'static,
    F: Fn(tonic::Request<U>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<tonic::Response<EncodedStream<T>>, Status>> + Send + 'static,
{
    let service = tower::service_fn(move |request| call(request));
    grpc(limit)
        .server_streaming(service, request)
        .await
        .into_response()
}

fn grpc<T: 'static, U: Message + Default + 'static>(limit: usize) -> Grpc<EncodedCodec<T, U>> {
    Grpc::new(EncodedCodec(PhantomData))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit)
}

impl<T: 'static, U: Message + Default + 'static> Codec for EncodedCodec<T, U> {
    type Encode = Encoded<T>;
    type Decode = U;
    type Encoder = EncodedEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        EncodedEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

impl<T> Encoder for EncodedEncoder<T> {
    type Item = Encoded<T>;
    type Error = Status;

    fn encode(&mut self, item: Encoded<T>, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item.bytes);
        Ok(())
    }
}

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf)
            .map(Some)
            .map_err(|error| status::undecodable(&error))
    }
}
