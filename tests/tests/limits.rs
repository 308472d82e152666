//! Limits end to end: budgets from every source, caps of steps and tools, retries, sizes, and a
//! conversation that outlives a refused command.

mod limits {
    mod budgets;
    mod caps;
    mod landing;
    mod sources;
    mod talk;
    mod told;
}
