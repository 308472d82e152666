//! Keys of the server around the loops: its log, tools, listener and telemetry.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{ByteSize, Period, SyncMode};

/// `session_log.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionLogConfig {
    /// The folder of all sessions; made with mode 0700. The default follows XDG_DATA_HOME where
    /// that is set.
    #[schemars(extend("x-kind" = "path"))]
    pub dir: PathBuf,
    /// When a fact is durable: `always` (before it is acknowledged), `none`, or an interval such as
    /// `50ms`, which is then what a power cut may take.
    #[schemars(extend("x-min" = "1ms", "x-max" = "10s"))]
    pub sync: SyncMode,
    /// The size at which a segment of the shared journal is closed.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "4GiB"))]
    pub segment_bytes: ByteSize,
}

impl Default for SessionLogConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("~/.local/share/loopwright"),
            sync: SyncMode::Always,
            segment_bytes: ByteSize::mib(64),
        }
    }
}

/// `tools.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ToolsConfig {
    /// How long a call may be silent, unless its tool declares otherwise; progress starts it anew.
    #[schemars(extend("x-min" = "1ms", "x-max" = "1d"))]
    pub timeout: Period,
    /// How long a call may take in all, progress or not.
    #[schemars(extend("x-min" = "1ms", "x-max" = "7d"))]
    pub absolute_cap: Period,
    /// How long a call waits for its sidecar to come back before it ends as not executed.
    #[schemars(extend("x-min" = "0s", "x-max" = "1h"))]
    pub sidecar_wait: Period,
    /// How long a sidecar may take to say what became of a call whose outcome was lost, before that
    /// counts as not known.
    #[schemars(extend("x-min" = "1ms", "x-max" = "10m"))]
    pub lookup_timeout: Period,
    /// The folder whose unix sockets a sidecar may be reached at. None = no unix sockets.
    #[schemars(extend("x-kind" = "path"))]
    pub unix_dir: Option<PathBuf>,
    /// Endpoints beyond loopback that a sidecar may register: `http://HOST:PORT`; without a port,
    /// any port of that host.
    #[schemars(extend("x-kind" = "urls"))]
    pub endpoints: Vec<String>,
    /// What follows a call whose outcome cannot be known: `ask` a person, `tell_model`, or `end` the
    /// loop. None = by the tool: `ask` for a destructive one, `tell_model` for others.
    pub on_unknown: Option<OnUnknown>,
    /// How long a call waits for a person's approval. None = without end.
    #[schemars(extend("x-min" = "1ms", "x-max" = "365d"))]
    pub approval_timeout: Option<Period>,
    /// What becomes of a call that nobody answered within `tools.approval_timeout`: `deny`, or
    /// `allow`.
    pub approval_default: ApprovalDefault,
    /// What becomes of a tool whose description or schema is not what it was when it was first
    /// seen: `quarantine` (not offered until its sidecar is taken out by name and registers anew),
    /// or `accept`.
    pub on_change: OnChange,
    /// How long a registration lasts without being renewed.
    #[schemars(extend("x-min" = "100ms", "x-max" = "1h"))]
    pub lease_ttl: Period,
    /// The longest result taken from a sidecar.
    #[schemars(extend("x-min" = "1KiB", "x-max" = "4MiB"))]
    pub max_result_bytes: ByteSize,
    /// Arguments that watchers, exports and traces do not get to see: a tool and the place in its
    /// arguments as a JSON pointer, `*` for every item, such as `files__write/content` or
    /// `mail__send/to/*/address`; a tool alone stands for all of its arguments. The log keeps them:
    /// recovery must send them again.
    #[schemars(extend("x-kind" = "fields"))]
    pub redact: Vec<String>,
}

impl Default for ToolsConfig {
    fn default() -> Self {
        Self {
            timeout: Period::from_secs(120),
            absolute_cap: Period::from_secs(30 * 60),
            sidecar_wait: Period::from_secs(30),
            lookup_timeout: Period::from_secs(10),
            unix_dir: None,
            endpoints: Vec::new(),
            on_unknown: None,
            approval_timeout: None,
            approval_default: ApprovalDefault::Deny,
            on_change: OnChange::Quarantine,
            lease_ttl: Period::from_secs(30),
            max_result_bytes: ByteSize::mib(1),
            redact: Vec::new(),
        }
    }
}

/// What follows a tool call with an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// The call waits until a person says what it did.
    Ask,
    /// The model is told that the call may or may not have run.
    TellModel,
    /// The loop ends as unknown_outcome.
    End,
}

/// What becomes of a call whose approval nobody gave or refused in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalDefault {
    /// It is not run, and the model is told so.
    Deny,
    /// It is run.
    Allow,
}

/// What becomes of a tool that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// It is not offered until somebody accepts it.
    Quarantine,
    /// It is offered as it is now, and a warning is logged.
    Accept,
}

/// `server.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The address to listen at. Beyond loopback it needs `server.auth.token_file` or
    /// `server.auth.insecure`.
    #[schemars(with = "String", extend("x-kind" = "address"))]
    pub listen: SocketAddr,
    /// Who may call.
    pub auth: AuthConfig,
    /// Bounds of the transport.
    pub limits: ServerLimitsConfig,
    /// How often a silent connection is pinged; one that does not answer within as long is closed.
    #[schemars(extend("x-min" = "1s", "x-max" = "1h"))]
    pub keepalive_interval: Period,
    /// Origins of web pages that may call: `https://HOST[:PORT]`, or `*` for any.
    #[schemars(extend("x-kind" = "origins"))]
    pub cors_origins: Vec<String>,
    /// Whether gRPC reflection is served, which lets tools such as grpcurl list the services.
    pub reflection: bool,
    /// How long a stopping server waits for what is running before it leaves it to the next start.
    #[schemars(extend("x-min" = "0s", "x-max" = "10m"))]
    pub shutdown_grace: Period,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            auth: AuthConfig::default(),
            limits: ServerLimitsConfig::default(),
            keepalive_interval: Period::from_secs(30),
            cors_origins: Vec::new(),
            reflection: true,
            shutdown_grace: Period::from_secs(8),
        }
    }
}

/// `server.auth.*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// A file with a line `TOKEN NAMESPACE PRINCIPAL ROLE` for each caller; it must not be readable
    /// by others.
    #[schemars(extend("x-kind" = "path"))]
    pub token_file: Option<PathBuf>,
    /// Lets anybody who can reach the port call everything, beyond loopback too.
    pub insecure: bool,
}

/// `server.limits.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimitsConfig {
    /// Streams open at once on one connection.
    #[schemars(extend("x-min" = 1, "x-max" = 1_000_000))]
    pub max_concurrent_streams: u32,
    /// The longest message that is taken. Clients take 4MiB unless told otherwise.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "64MiB"))]
    pub max_message_bytes: ByteSize,
}

impl Default for ServerLimitsConfig {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            max_message_bytes: ByteSize::mib(4),
        }
    }
}

/// `telemetry.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector that takes traces by OTLP over gRPC. None = no traces.
    #[schemars(extend("x-kind" = "url"))]
    pub otlp_endpoint: Option<String>,
    /// What is logged: a level, or directives such as `info,loopwright_server=debug`. RUST_LOG goes
    /// before it.
    #[schemars(extend("x-kind" = "log_filter"))]
    pub log_level: String,
    /// How a log line looks, on standard error.
    pub log_format: LogFormat,
    /// The `service.name` of traces and metrics.
    pub service_name: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
            service_name: "loopwright".to_owned(),
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
