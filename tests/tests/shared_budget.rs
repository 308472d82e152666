//! A budget that many loops share: it holds whatever is killed, and nothing of it leaks.

#[path = "shared_budget/command.rs"]
mod command;
#[path = "shared_budget/deaths.rs"]
mod deaths;
#[path = "shared_budget/gone.rs"]
mod gone;
#[path = "shared_budget/landing.rs"]
mod landing;
#[path = "shared_budget/ledger.rs"]
mod ledger;
#[path = "shared_budget/namespace.rs"]
mod namespace;
#[path = "shared_budget/parallel.rs"]
mod parallel;
#[path = "shared_budget/tools.rs"]
mod tools;
