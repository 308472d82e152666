//! What follows from each input, rule by rule. Every entry of these tests is also folded, decided
//! again from itself, and its conversation checked for pairs: see [`kit`].

mod adopt;
mod approval;
mod attach;
mod bound;
mod budget;
mod cancel;
mod ceiling;
mod context;
mod cut;
mod ends;
mod instances;
mod kit;
mod landing;
mod late;
mod limits;
mod messages;
mod model;
mod money;
mod pause;
mod progress;
mod recap;
mod refused;
mod resume;
mod shared;
mod steps;
mod time;
mod timers;
mod told;
mod tools;
mod unknown;
