//! `loopwright tools list`.
//!
//! Boundary: ListTools, page by page. Invariant: a tool that is not offered stands there with the reason.

use clap::{Args, Subcommand};
use loopwright_proto::v1::{ListToolsRequest, Tool};

use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;
use crate::render::table;

/// Pages that are read at most; with 500 tools each, more than a server keeps.
const MAX_PAGES: usize = 100;

/// Tools that the server offers.
#[derive(Debug, Clone, Subcommand)]
pub enum ToolsCommand {
    /// List tools, by name
    List(ListTools),
}

/// List tools, by name.
#[derive(Debug, Clone, Args)]
pub struct ListTools {
    /// Of this sidecar only
    #[arg(long, value_name = "NAME")]
    pub sidecar: Option<String>,
    /// One tool a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl ToolsCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let Self::List(list) = self;
        let tools = list.read(client).await?;
        if list.json {
            for tool in &tools {
                terminal.json(tool)?;
            }
        } else if tools.is_empty() {
            terminal.note(
                "no tools; `loopwright sidecar calc` serves some, \
                 and any sidecar that registers here adds its own",
            )?;
        } else {
            for line in table(&HEAD, &tools.iter().map(row).collect::<Vec<_>>()) {
                terminal.line(&line)?;
            }
        }
        Ok(Exit::Completed)
    }
}

impl ListTools {
    async fn read(&self, client: &Client) -> Result<Vec<Tool>, Failure> {
        let (mut tools, mut page_token) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let request = ListToolsRequest {
                page_size: 500,
                page_token,
                sidecar: self.sidecar.clone().unwrap_or_default(),
                ..ListToolsRequest::default()
            };
            let page = client.list_tools(request).await?;
            tools.extend(page.tools);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(tools)
    }
}

const HEAD: [&str; 4] = ["TOOL", "STATE", "EFFECT", "DESCRIPTION"];

fn row(tool: &Tool) -> Vec<String> {
    let offered = tool.tool.clone().unwrap_or_default();
    let spec = offered.spec.unwrap_or_default();
    let word = |name: &str, prefix: &str| {
        let word = name.strip_prefix(prefix).unwrap_or(name);
        word.to_lowercase().replace('_', " ")
    };
    let about = if tool.detail.is_empty() {
        spec.description.clone()
    } else {
        tool.detail.clone()
    };
    let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
    vec![
        offered.name,
        word(tool.state().as_str_name(), "TOOL_STATE_"),
        word(spec.effect_class().as_str_name(), "EFFECT_CLASS_"),
        about.chars().filter(|c| !c.is_control()).take(72).collect(),
    ]
}
