//! Log torture: whatever is done to the log is found, and nothing acknowledged is lost.
//!
//! Of a log of 200 records, on the simulated disk: every bit of the journal, of a session's file and of
//! the checkpoint's manifest is flipped, one at a time (CI: one bit of every ninth byte); the end is cut
//! at every byte of the last three records, and padded with zeros; each line is deleted, doubled and
//! swapped with the next. All of it is detected, and every stream reads as its exact prefix, but for
//! what nothing can tell from a loss of power: rot in the last batch, which is a torn tail, and the loss
//! of whole lines at the end, which shows against a cursor.
//!
//! Of the real server: it runs on a file system with no room at every size of a few pages and a few
//! files; and the n-th of its syncs fails, for every n from the start over the first appends and filing
//! to the last checkpoint (CI: the first ten and fourteen others), by a small library in C that is
//! compiled here and preloaded.
//!
//! The oracle of the log (`judge`) has tests with doctored findings. The rest was seen to fail, and to
//! name the sync: before the server's exit code told of a log that failed while it was closed.

mod rig_torture {
    mod bits;
    mod image;
    mod judge;
    mod lines;
    mod look;
    mod room;
    mod run;
    mod syncs;
}
