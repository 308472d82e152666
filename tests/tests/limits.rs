//! Limits end to end: budgets from every source, caps of steps and tools, retries, sizes, limits that
//! move and loops that are paused, and a conversation that outlives a refused command.

mod limits {
    mod budgets;
    mod caps;
    mod landing;
    mod moves;
    mod pauses;
    mod sources;
    mod talk;
    mod time;
    mod told;
}
