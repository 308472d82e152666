//! Agents: what a request asks for, checked; what a session runs with, told.

use std::sync::Arc;

use loopwright_core::{
    agent::{Agent, Limits, UnknownPolicy},
    ledger::NAMESPACE_BUDGET,
};
use loopwright_proto::v1;

use super::{
    context,
    fields::{self, Violations, shown},
    limits::{self, Asking},
    words,
};
use crate::{
    config::{Config, OnUnknown},
    effects::model::Models,
};

/// Shared budgets.
const MAX_BUDGETS: usize = 8;
/// Fallback models.
const MAX_FALLBACKS: usize = 8;
/// Tools by name.
const MAX_TOOLS: usize = 256;
/// Bytes of a system prompt.
const MAX_SYSTEM_PROMPT: usize = 512 << 10;
/// Characters of a model's or a tool's name, or of a reasoning effort.
const MAX_NAME: usize = 200;
/// Bytes of the options for a provider.
const MAX_OPTIONS: usize = 64 << 10;
/// How a session's loops run, resolved: nothing is left to a default.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Who answers. The model is as the request names it: empty where it names none.
    pub agent: Agent,
    /// Within which limits.
    pub limits: Arc<Limits>,
}

/// The terms that a request asks for, or the configured ones where it brings no agent.
pub fn terms(agent: Option<v1::Agent>, config: &Config, all: &mut Violations) -> Terms {
    let asked = agent.unwrap_or_default();
    refuse_what_does_not_act(&asked, config, all);
    let asking = Asking {
        on_unknown: on_unknown(asked.unknown_policy, config, all),
        ..limits::asking(asked.approval.as_ref(), config, all)
    };
    let limits = limits::resolve(asked.limits.as_ref(), asking, config, all);
    let session = asked.session_budget.as_ref();
    let session_budget = limits::session_budget(session, "agent.session_budget", all);
    let agent = Agent {
        name: fields::optional_id("agent.name", &asked.name, all)
            .map(|id| id.to_string())
            .unwrap_or_default(),
        model: name(asked.model, "agent.model", all),
        fallbacks: fallbacks(asked.fallbacks, all),
        system_prompt: system_prompt(asked.system_prompt, all),
        temperature: share(asked.temperature, 2.0, "agent.temperature", all),
        top_p: share(asked.top_p, 1.0, "agent.top_p", all),
        reasoning_effort: Some(name(asked.reasoning_effort, "agent.reasoning_effort", all))
            .filter(|effort| !effort.is_empty()),
        tool_choice: tool_choice(asked.tool_choice, all),
        provider_options: provider_options(asked.provider_options_json, all),
        output_schema: None,
        tools: asked.tools.map(|selection| tools(selection.tools, all)),
        budgets: budgets(&asked.budgets, all),
    };
    let limits = Limits {
        context: Some(context::resolve(asked.context.as_ref(), config, all)),
        session_budget,
        ..limits
    };
    Terms {
        agent,
        limits: Arc::new(limits),
    }
}

/// An agent and its limits on the wire.
#[must_use]
pub fn to_wire(agent: &Agent, limits: Option<&Limits>) -> v1::Agent {
    v1::Agent {
        name: agent.name.clone(),
        model: agent.model.clone(),
        fallbacks: agent.fallbacks.clone(),
        system_prompt: agent.system_prompt.clone(),
        temperature: agent.temperature,
        top_p: agent.top_p,
        reasoning_effort: agent.reasoning_effort.clone().unwrap_or_default(),
        tool_choice: agent.tool_choice.as_deref().map(tool_choice_to_wire),
        provider_options_json: agent.provider_options.clone().unwrap_or_default(),
        output_schema_json: agent.output_schema.clone().unwrap_or_default(),
        tools: agent.tools.clone().map(|tools| v1::ToolSelection { tools }),
        limits: limits.map(limits::to_wire),
        context: limits.and_then(|limits| limits.context.as_ref().map(context::to_wire)),
        budgets: agent.budgets.clone(),
        approval: limits.map(limits::approval_to_wire),
        unknown_policy: limits
            .and_then(|limits| limits.on_unknown)
            .map_or(v1::UnknownPolicy::Unspecified, words::unknown_policy)
            as i32,
        session_budget: limits.and_then(limits::session_budget_to_wire),
    }
}

fn refuse_what_does_not_act(asked: &v1::Agent, config: &Config, all: &mut Violations) {
    let mut refuse = |set: bool, field: &str, way_out: &str| {
        if set {
            all.add(
                field,
                format!("does not act in this version yet; {way_out}"),
            );
        }
    };
    refuse(
        !asked.output_schema_json.is_empty(),
        "agent.output_schema_json",
        "leave it out, and ask for JSON in the system prompt",
    );
    let approval = asked.approval.as_ref();
    for (set, field) in [
        (
            approval.is_some_and(|policy| policy.destructive),
            "agent.approval.destructive",
        ),
        (
            approval.is_some_and(|policy| !policy.tools.is_empty()),
            "agent.approval.tools",
        ),
    ] {
        let way_out = "leave it out, and offer only tools that may run by themselves";
        refuse(set, field, way_out);
    }
    let Some(context) = &asked.context else {
        return;
    };
    let configured = u64::from(config.context.max_tool_output_chars);
    refuse(
        context
            .max_tool_output_chars
            .is_some_and(|chars| chars != configured),
        "agent.context.max_tool_output_chars",
        "leave it out; context.max_tool_output_chars of the server holds",
    );
}

/// `None`: by the tool.
fn on_unknown(asked: i32, config: &Config, all: &mut Violations) -> Option<UnknownPolicy> {
    match v1::UnknownPolicy::try_from(asked) {
        Ok(v1::UnknownPolicy::Unspecified) => config.tools.on_unknown.map(|policy| match policy {
            OnUnknown::Ask => UnknownPolicy::Ask,
            OnUnknown::TellModel => UnknownPolicy::TellModel,
            OnUnknown::End => UnknownPolicy::End,
        }),
        Ok(v1::UnknownPolicy::Ask) => Some(UnknownPolicy::Ask),
        Ok(v1::UnknownPolicy::TellModel) => Some(UnknownPolicy::TellModel),
        Ok(v1::UnknownPolicy::End) => Some(UnknownPolicy::End),
        Err(_) => {
            all.add(
                "agent.unknown_policy",
                format!("{asked} is no value of this enum; leave it out"),
            );
            None
        }
    }
}

fn name(text: String, field: &str, all: &mut Violations) -> String {
    if text.chars().count() > MAX_NAME {
        all.add(
            field,
            format!("{} is longer than {MAX_NAME} characters", shown(&text)),
        );
    }
    text
}

fn fallbacks(models: Vec<String>, all: &mut Violations) -> Vec<String> {
    if models.len() > MAX_FALLBACKS {
        let count = models.len();
        all.add(
            "agent.fallbacks",
            format!("has {count} models; at most {MAX_FALLBACKS} are taken"),
        );
    }
    for (at, model) in models.iter().enumerate().take(MAX_FALLBACKS) {
        if model.is_empty() || model.chars().count() > MAX_NAME {
            let problem = format!("{} is no name of a model; leave it out", shown(model));
            all.add(format!("agent.fallbacks[{at}]"), problem);
        }
    }
    models
}

/// The namespace's own comes by itself.
fn budgets(names: &[String], all: &mut Violations) -> Vec<String> {
    if names.len() > MAX_BUDGETS {
        let count = names.len();
        let problem = format!("has {count} names; at most {MAX_BUDGETS} are taken");
        all.add("agent.budgets", problem);
    }
    let mut budgets: Vec<String> = Vec::new();
    for (at, name) in names.iter().enumerate().take(MAX_BUDGETS) {
        if let Some(id) = fields::id(&format!("agent.budgets[{at}]"), name, all)
            && id.as_str() != NAMESPACE_BUDGET
            && !budgets.contains(name)
        {
            budgets.push(name.clone());
        }
    }
    budgets
}

fn system_prompt(text: String, all: &mut Violations) -> String {
    if text.len() > MAX_SYSTEM_PROMPT {
        let bytes = text.len();
        let problem = format!("has {bytes} bytes; at most {MAX_SYSTEM_PROMPT} are taken");
        all.add("agent.system_prompt", problem);
    }
    text
}

fn share(value: Option<f64>, most: f64, field: &str, all: &mut Violations) -> Option<f64> {
    if let Some(value) = value.filter(|value| !(0.0..=most).contains(value)) {
        all.add(field, format!("{value} is not between 0 and {most}"));
    }
    value
}

fn tool_choice(choice: Option<v1::ToolChoice>, all: &mut Violations) -> Option<String> {
    let choice = choice?;
    let field = "agent.tool_choice";
    let mode = v1::ToolChoiceMode::try_from(choice.mode);
    if mode != Ok(v1::ToolChoiceMode::Tool) && !choice.tool.is_empty() {
        let problem = format!(
            "names {}; set the mode to TOOL, or leave it out",
            shown(&choice.tool)
        );
        all.add("agent.tool_choice.tool", problem);
    }
    match mode {
        Ok(v1::ToolChoiceMode::Unspecified | v1::ToolChoiceMode::Auto) => Some("auto".to_owned()),
        Ok(v1::ToolChoiceMode::None) => Some("none".to_owned()),
        Ok(v1::ToolChoiceMode::Required) => Some("required".to_owned()),
        Ok(v1::ToolChoiceMode::Tool) if choice.tool.contains("__") => Some(choice.tool),
        Ok(v1::ToolChoiceMode::Tool) => {
            let problem = "is not the name of a tool, such as \"files__read\"";
            all.add(
                "agent.tool_choice.tool",
                format!("{} {problem}", shown(&choice.tool)),
            );
            None
        }
        Err(_) => {
            all.add(
                field,
                format!(
                    "mode {} is no value of this enum; leave it out",
                    choice.mode
                ),
            );
            None
        }
    }
}

fn tool_choice_to_wire(choice: &str) -> v1::ToolChoice {
    let mode = match choice {
        "auto" => v1::ToolChoiceMode::Auto,
        "none" => v1::ToolChoiceMode::None,
        "required" => v1::ToolChoiceMode::Required,
        tool => {
            let tool = tool.to_owned();
            return v1::ToolChoice {
                mode: v1::ToolChoiceMode::Tool as i32,
                tool,
            };
        }
    };
    v1::ToolChoice {
        mode: mode as i32,
        tool: String::new(),
    }
}

fn provider_options(json: String, all: &mut Violations) -> Option<String> {
    let field = "agent.provider_options_json";
    if json.is_empty() {
        return None;
    }
    if json.len() > MAX_OPTIONS {
        let problem = format!("has {} bytes; at most {MAX_OPTIONS} are taken", json.len());
        all.add(field, problem);
        return None;
    }
    if let Err(problem) = Models::check_options(&json) {
        all.add(field, format!("{} cannot be sent: {problem}", shown(&json)));
    }
    Some(json)
}

fn tools(names: Vec<String>, all: &mut Violations) -> Vec<String> {
    if names.len() > MAX_TOOLS {
        let count = names.len();
        all.add(
            "agent.tools",
            format!("has {count} names; at most {MAX_TOOLS} are taken"),
        );
    }
    for (at, name) in names.iter().enumerate().take(MAX_TOOLS) {
        let parts = name.split_once("__");
        if name.chars().count() > MAX_NAME
            || parts.is_none_or(|(a, b)| a.is_empty() || b.is_empty())
        {
            all.add(
                format!("agent.tools.tools[{at}]"),
                format!(
                    "{} is not the name of a tool, such as \"files__read\"",
                    shown(name)
                ),
            );
        }
    }
    names
}
