//! The failpoint rig: the server dies at each of the six points of a tool call, for each effect class of
//! tools, and every call comes out as its class promises.
//!
//! The server under test has no failpoints: its peers hold it at the point. The model holds the end of
//! its reply back (before the intent), a proxy before the sidecar holds the request (after the intent),
//! the sidecar stops before its effect (after the send) and after it (after the effect), the proxy
//! holds the answer (after the reply), and a watcher sees the result (after the result). Then the
//! server is killed by SIGKILL. What it left behind comes to nothing, goes on while it is dead, or goes
//! on when the next server is at work, as the dice say.
//!
//! At-most-once calls are made to a sidecar that can look calls up, and to one that cannot; 5 runs of
//! each way, or 250 with `LOOPWRIGHT_RIG=full`; `LOOPWRIGHT_RIG_SEED` draws the same fates again.
//!
//! The oracle holds the file of effects and the log against what the effect class promises (`judge`,
//! whose tests show which lies it catches).

mod rig_failpoints {
    mod judge;
    mod lanes;
    mod model;
    mod round;
    mod run;
    mod sidecar;
}
