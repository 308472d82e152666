//! The command line as a person or a script uses it: exit codes, what goes where, and the way out that
//! each error names.

mod cli {
    mod config;
    mod doctor;
    mod exits;
    mod money;
    mod shows;
    mod tools;
}
