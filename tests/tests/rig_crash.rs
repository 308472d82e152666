//! The crash rig: the real server is killed at random moments of running loops, again and again, and
//! neither its clients nor its tools may be able to tell.
//!
//! Sixteen sessions at a time run loops of streamed replies that call five tools, of each effect class
//! and with and without lookup, in turn and side by side. Clients start and steer them, watch by cursor
//! throughout, and answer for a person where a session asks one. The tools write a line to a file for
//! each real effect, and go on when their caller is gone. The server is killed by SIGKILL and started
//! again on the same data and the same port: 100 times, or 1,000 times with `LOOPWRIGHT_RIG=full`.
//! `LOOPWRIGHT_RIG_SEED` makes the same choices again; what the machine makes of them differs from run
//! to run.
//!
//! The oracle holds what clients were told, and what tools did, against the log: no acknowledged
//! entry or command is lost, there twice or out of order; no effect is without its intent; no
//! at-most-once call has two effects, and each that was running when its server died ends as unknown,
//! or as its sidecar says where it can say; a deduplicated call that completed had one effect; every
//! call and every loop has one end; epochs rise by one.
//!
//! It was seen to fail, and to name the culprits: with the at-most-once tool declared idempotent
//! ("dispatched again"), with the deduplicating tool forgetting its keys ("had 2 effects"), and with
//! a server that carries out a repeated request again ("is in the log at [24, 26]").

mod rig_crash {
    mod calls;
    mod files;
    mod kills;
    mod lane;
    mod plan;
    mod run;
    mod sidecar;
}
