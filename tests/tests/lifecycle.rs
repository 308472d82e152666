//! The life of a server from outside: how it ends whatever hangs, what it refuses while it lives, and
//! what the next one finds.

mod lifecycle {
    mod ending;
    mod room;
    mod waking;
}
