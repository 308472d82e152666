//! The power cut rig: a server on an ext4 of its own, in an image on a loop device; at a random moment it
//! is stopped, and the image is copied while it is mounted, without a sync. The copy holds what the disk
//! would hold if the power had gone at that moment. It is mounted elsewhere, which replays the file
//! system's journal, and the next server starts on it: nothing that clients were told is missing.
//!
//! 6 cuts, or 60 with `LOOPWRIGHT_RIG=full`; `LOOPWRIGHT_RIG_SEED` draws the same moments again. Where
//! loop devices or mounts are not allowed, the rig says so by name and is skipped.
//!
//! It can see a lie: a server that is told not to sync loses entries here, and a test wants to see that.

mod rig_powercut {
    mod cut;
    mod run;
}
