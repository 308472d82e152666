//! The shape of the project, held by a test: who may depend on whom, how long things may be, which
//! names say nothing.

mod structure {
    mod bars;
    mod dependencies;
    mod sizes;
    mod sources;
    mod words;
}
