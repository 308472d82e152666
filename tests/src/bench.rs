//! The parts of the benches: a workload, a floor to hold it against, and goals.
//!
//! Everything is a ratio measured side by side in one run. The mock (model and tool), the floor and
//! the server are three processes, so that each one's processor time is the kernel's own account.

pub mod floor;
pub mod goal;
pub mod journal;
pub mod mock;
pub mod process;
pub mod program;
pub mod resume;
pub mod rig;

/// One workload: `loops` at once, each of `steps` steps with a tool call, and a last reply of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Loops at once.
    pub loops: u32,
    /// Steps of each.
    pub steps: u32,
    /// Bytes of each tool result.
    pub result_bytes: u32,
    /// Pieces in which the mock streams each reply.
    pub pieces: u32,
    /// Whether the mock counts the tokens of each prompt, so that the conversation is compacted when it
    /// fills its window; else every prompt counts the same.
    pub counted: bool,
}

impl Workload {
    /// `W(loops, steps)` with results of 200 bytes, each reply in one piece.
    #[must_use]
    pub fn new(loops: u32, steps: u32) -> Self {
        Self {
            loops,
            steps,
            result_bytes: 200,
            pieces: 1,
            counted: false,
        }
    }

    /// The message that starts loop number `number`; the mock reads all it needs from it.
    #[must_use]
    pub fn message(&self, number: u32) -> String {
        let Self {
            steps,
            result_bytes,
            pieces,
            counted,
            ..
        } = self;
        let counted = u32::from(*counted);
        format!(
            "W loop={number} steps={steps} bytes={result_bytes} pieces={pieces} counted={counted} ."
        )
    }

    /// Tool calls of all loops.
    #[must_use]
    pub fn all_steps(&self) -> u32 {
        self.loops * self.steps
    }
}
