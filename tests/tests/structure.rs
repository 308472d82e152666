//! The shape of the project, held by a test: who may depend on whom, how long things may be, which
//! names say nothing.

mod structure {
    pub mod dependencies;
    pub mod sizes;
    pub mod sources;
    pub mod words;
}
