//! Clients and sidecars in other languages, as their stock generators make them, against the real
//! server. The files are those of `tests/polyglot`, which the README shows.

mod polyglot {
    mod clients;
    mod cuts;
    mod doubts;
    mod served;
    mod web;
}
