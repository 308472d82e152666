//! What `deploy/` holds, against the programs that will read it: helm, the Kubernetes schemas, a
//! linter of Dockerfiles, and the server itself.

mod deploy {
    mod chart;
    mod image;
    mod processes;
    mod rendered;
}
