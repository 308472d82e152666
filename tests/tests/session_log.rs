//! SessionLogService from outside: sessions shown, copied, moved, damaged, repaired and deleted, on the
//! real binary, which is killed right after it has answered.

mod session_log {
    mod cursors;
    mod damage;
    mod deletions;
    mod forks;
    mod journal;
    mod kills;
    mod moves;
    mod requests;
    mod stage;
}
