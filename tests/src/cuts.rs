//! A model that streams long texts, behind a proxy that cuts two hundred connections to its server.

use anyhow::{Result, ensure};
use loopwright_proto::v1::{Entry, ModelCallCompleted, event::Kind, part};

use crate::{
    proxy::Proxy,
    scene::{self, Scene, Stage},
};

/// Connections that are cut.
pub const CUTS: u32 = 200;
/// What every delta of a text contains.
const MARKER: &[u8] = b"token-";

/// A server with the model `words`, and the proxy before it.
#[derive(Debug)]
pub struct Cut {
    /// The server, and a client that nobody cuts off.
    pub scene: Scene,
    /// The way to it that is cut.
    pub proxy: Proxy,
}

impl Cut {
    /// Serves a model that says so many texts, with a pause after every few words, and calls a tool
    /// between them; `seed` says where the cuts fall.
    ///
    /// # Errors
    /// Where the server does not come up.
    pub async fn serve(texts: u32, pause_ms: u32, seed: u64) -> Result<Self> {
        let scene = Stage::new(&[("words", &script(texts, pause_ms))])?.start()?;
        let target = scene.server.url.trim_start_matches("http://").parse()?;
        let proxy = Proxy::start(target, CUTS, MARKER, seed).await?;
        Ok(Self { scene, proxy })
    }

    /// Whether all cuts have been made.
    ///
    /// # Errors
    /// Where they have, and not half of them in frames and half in texts.
    pub fn is_done(&self) -> Result<bool> {
        let (frames, deltas) = self.proxy.cuts();
        let is_done = frames + deltas >= CUTS;
        ensure!(
            !is_done || frames == CUTS / 2,
            "{frames} cuts in frames, {deltas} in deltas"
        );
        Ok(is_done)
    }
}

/// The replies that these entries tell of, each with its text.
pub fn replies(log: &[Entry]) -> impl Iterator<Item = (&ModelCallCompleted, String)> {
    scene::kinds(log).filter_map(|kind| {
        let Kind::ModelCallCompleted(reply) = kind else {
            return None;
        };
        let parts = reply.message.iter().flat_map(|message| &message.parts);
        let texts = parts.filter_map(|part| match &part.kind {
            Some(part::Kind::Text(text)) => Some(text.as_str()),
            _ => None,
        });
        Some((reply, texts.collect()))
    })
}

/// What was shown of a reply is how its text begins.
///
/// # Errors
/// Where it is not.
pub fn begins_as_shown(reply: &ModelCallCompleted, text: &str, shown: &str) -> Result<()> {
    ensure!(
        text.starts_with(shown),
        "{} was shown as {shown:?}",
        reply.call
    );
    Ok(())
}

fn script(texts: u32, pause_ms: u32) -> String {
    let words: Vec<String> = (0..150).map(|n| format!("token-{n:03}")).collect();
    let words = words.join(" ");
    let turn =
        |n| format!("- text: \"{n}: {words}\"\n  chunk: {{ chars: 20, delay_ms: {pause_ms} }}\n");
    let turns: Vec<String> = (0..texts).map(turn).collect();
    turns.join("  tool_calls: [{ tool: none__such }]\n")
}
