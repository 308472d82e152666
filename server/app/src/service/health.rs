//! grpc.health.v1 and reflection: how load balancers and people see what is served.

use loopwright_proto::v1::{
    loop_service_server::SERVICE_NAME as LOOPS,
    session_log_service_server::SERVICE_NAME as SESSION_LOGS,
    tool_service_server::SERVICE_NAME as TOOLS,
};
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tonic_reflection::server::Builder;

/// The services of this server; the empty name stands for the server as a whole.
const SERVED: [&str; 4] = ["", LOOPS, SESSION_LOGS, TOOLS];
const HEALTH: &str = "grpc.health.v1.Health";

/// Says whether the server takes requests, as a whole and by service.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Everything is serving.
    pub async fn serving() -> Self {
        let health = Self(HealthReporter::new());
        health.set(ServingStatus::Serving).await;
        health
    }

    /// Nothing is serving any more: load balancers are to look elsewhere.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }

    async fn set(&self, status: ServingStatus) {
        for name in SERVED {
            self.0.set_service_status(name, status).await;
        }
    }
}

/// Adds reflection, in both versions: Python's speaks v1alpha, grpcurl v1 first.
pub(super) fn with_reflection(routes: Routes) -> Routes {
    let builder = || {
        let names = [
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        let names = [LOOPS, SESSION_LOGS, TOOLS, HEALTH]
            .into_iter()
            .chain(names);
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(loopwright_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        names.fold(builder, |builder, name| builder.with_service_name(name))
    };
    let sound = "the descriptors were compiled with the crate";
    routes
        .add_service(builder().build_v1().expect(sound))
        .add_service(builder().build_v1alpha().expect(sound))
}
