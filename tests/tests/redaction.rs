//! Secrets that come in, and arguments that are not for everybody: where they are, and where they are
//! not. Looked for as bytes: in the data directory, in what watchers, exports and traces are sent.

mod redaction {
    mod leaky;
    pub(super) mod secrets;
    pub(super) mod shown;
}
