//! Keys of what is taken out of texts before anybody else sees them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `redaction.*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionConfig {
    /// Kinds of secrets that are replaced by `[redacted:KIND]` wherever they come in: in messages and
    /// system prompts of clients, results and errors of tools, errors of providers. The model, the
    /// log and watchers see the same text. What a model writes itself is not touched.
    #[schemars(extend("x-kind" = "words"))]
    pub secrets: Vec<SecretKind>,
}

/// A kind of secret that is known by its form.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SecretKind {
    /// A private key as PEM, from its first line to its last; one that is cut off, as far as it goes.
    PrivateKey,
    /// An access key id of AWS (AKIA.., ASIA..), or a secret access key behind its name.
    AwsAccessKey,
    /// A token of GitHub (ghp_.., gho_.., ghu_.., ghs_.., ghr_.., github_pat_..).
    GithubToken,
    /// A key of Anthropic (sk-ant-..).
    AnthropicKey,
    /// A key of OpenAI (sk-.., sk-proj-.., sk-svcacct-..).
    OpenaiKey,
    /// A token or a webhook of Slack (xoxb-.., xapp-.., hooks.slack.com/services/..).
    SlackToken,
    /// An API key of Google (AIza..).
    GoogleApiKey,
    /// A JSON Web Token, signed or encrypted.
    Jwt,
    /// What stands behind `Bearer`, where it looks like a token.
    BearerToken,
    /// A card number: 14 to 19 digits of a known issuer whose check digit is right.
    CreditCard,
    /// An e-mail address.
    Email,
}

impl SecretKind {
    /// Every kind. Where two overlap and begin at the same place, the first one gives the name.
    pub const ALL: [Self; 11] = [
        Self::PrivateKey,
        Self::AwsAccessKey,
        Self::GithubToken,
        Self::AnthropicKey,
        Self::OpenaiKey,
        Self::SlackToken,
        Self::GoogleApiKey,
        Self::Jwt,
        Self::BearerToken,
        Self::CreditCard,
        Self::Email,
    ];

    /// Its name in configuration and in place of what was taken out.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrivateKey => "private_key",
            Self::AwsAccessKey => "aws_access_key",
            Self::GithubToken => "github_token",
            Self::AnthropicKey => "anthropic_key",
            Self::OpenaiKey => "openai_key",
            Self::SlackToken => "slack_token",
            Self::GoogleApiKey => "google_api_key",
            Self::Jwt => "jwt",
            Self::BearerToken => "bearer_token",
            Self::CreditCard => "credit_card",
            Self::Email => "email",
        }
    }
}
