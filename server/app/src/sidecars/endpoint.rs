//! Where a sidecar may be reached: read from text, allowed or refused by the configuration.
//!
//! Boundary: texts and paths only; nothing is resolved or dialled here. Invariant: an [`Address`]
//! that came from [`AllowList::address`] is loopback, a socket below the one unix folder, or listed
//! in `tools.endpoints`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use http::Uri;

use crate::config::ToolsConfig;

/// Longest path of a unix socket that Linux takes, without its closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Where a sidecar serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// At one of these hosts, tried in order.
    Ip(Vec<IpAddr>, u16),
    /// At a host that the configuration lists by name.
    Name(String, u16),
    /// At a unix socket.
    Unix(PathBuf),
}

/// Why an endpoint is not dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndpointError {
    /// It is not an endpoint at all.
    Malformed(String),
    /// It is one that the configuration does not allow; names the key that would.
    NotAllowed(String),
}

/// What may be dialled.
#[derive(Clone, Debug)]
pub(crate) struct AllowList {
    unix_dir: Option<PathBuf>,
    listed: Vec<(String, Option<u16>)>,
}

impl AllowList {
    /// What the configuration allows beyond loopback.
    pub(crate) fn new(tools: &ToolsConfig) -> Self {
        let listed = tools.endpoints.iter().filter_map(|text| {
            let uri: Uri = text.parse().ok()?;
            let host = bare_host(uri.host()?).to_ascii_lowercase();
            Some((host, uri.port_u16()))
        });
        Self {
            unix_dir: tools.unix_dir.clone(),
            listed: listed.collect(),
        }
    }

    /// Reads an endpoint.
    ///
    /// # Errors
    /// It is none, or not one that may be dialled.
    pub(crate) fn address(&self, endpoint: &str) -> Result<Address, EndpointError> {
        match endpoint.strip_prefix("unix:") {
            Some(path) => self.socket(path),
            None => self.host(endpoint),
        }
    }

    /// The folder that unix sockets lie in, where there is one.
    pub(crate) fn unix_dir(&self) -> Option<&Path> {
        self.unix_dir.as_deref()
    }

    fn socket(&self, path: &str) -> Result<Address, EndpointError> {
        // gRPC names write an absolute path with and without an empty authority.
        let path = path.strip_prefix("//").unwrap_or(path);
        let path = Path::new(path);
        let plain = |c: Component| matches!(c, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(plain) {
            return Err(malformed(
                path.display(),
                "the path of a socket is absolute, without `..`",
            ));
        }
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            let problem = format!("a socket's path has at most {MAX_SOCKET_PATH} bytes");
            return Err(malformed(path.display(), &problem));
        }
        match &self.unix_dir {
            Some(dir) if path.starts_with(dir) && path != dir => Ok(Address::Unix(path.into())),
            Some(dir) => Err(EndpointError::NotAllowed(format!(
                "unix:{} is not below tools.unix_dir = {}; move the socket there, or configure \
                 another folder",
                path.display(),
                dir.display()
            ))),
            None => Err(EndpointError::NotAllowed(format!(
                "unix:{}: no unix socket is dialled until tools.unix_dir names the folder that \
                 sockets lie in",
                path.display()
            ))),
        }
    }

    fn host(&self, endpoint: &str) -> Result<Address, EndpointError> {
        let form = "expected http://HOST:PORT or unix:/PATH";
        let uri: Uri = endpoint.parse().map_err(|_| malformed(endpoint, form))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(malformed(endpoint, form));
        };
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !bare || authority.as_str().contains('@') {
            return Err(malformed(endpoint, form));
        }
        let Some(port) = uri.port_u16().filter(|&port| port > 0) else {
            return Err(malformed(
                endpoint,
                "name the port, from 1 to 65535: http://HOST:PORT",
            ));
        };
        match scheme {
            "http" => self.tcp(bare_host(authority.host()), port),
            "https" => Err(EndpointError::NotAllowed(format!(
                "{endpoint}: sidecars are dialled without TLS; serve http on loopback or on a unix \
                 socket below tools.unix_dir, or list http://HOST:PORT in tools.endpoints"
            ))),
            _ => Err(malformed(endpoint, form)),
        }
    }

    fn tcp(&self, host: &str, port: u16) -> Result<Address, EndpointError> {
        let host = host.to_ascii_lowercase();
        if host == "localhost" {
            // Not resolved: a hosts file could send it elsewhere.
            let both = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(Address::Ip(both, port));
        }
        let ip: Option<IpAddr> = host.parse().ok();
        let is_listed = self
            .listed
            .iter()
            .any(|(name, only)| *name == host && only.is_none_or(|only| only == port));
        match ip {
            Some(ip) if ip.is_loopback() || is_listed => Ok(Address::Ip(vec![ip], port)),
            None if is_listed => Ok(Address::Name(host, port)),
            _ => Err(EndpointError::NotAllowed(format!(
                "http://{host}:{port} is not on loopback; to allow it, add it to tools.endpoints"
            ))),
        }
    }
}

fn bare_host(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn malformed(endpoint: impl std::fmt::Display, problem: &str) -> EndpointError {
    EndpointError::Malformed(format!("{endpoint}: {problem}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn list(unix_dir: Option<&str>, endpoints: &[&str]) -> AllowList {
        AllowList::new(&ToolsConfig {
            unix_dir: unix_dir.map(PathBuf::from),
            endpoints: endpoints.iter().map(|&text| text.to_owned()).collect(),
            ..ToolsConfig::default()
        })
    }

    #[test]
    fn loopback_and_what_is_listed_may_be_dialled() {
        let allow = list(
            Some("/run/loopwright"),
            &[
                "http://10.1.2.3:7071",
                "http://tools.example",
                "http://[2001:db8::1]:7000",
            ],
        );
        for good in [
            "http://127.0.0.1:7071",
            "http://127.8.8.8:1/",
            "http://[::1]:7071",
            "http://localhost:7071",
            "http://LOCALHOST:7071",
            "http://10.1.2.3:7071",
            "http://tools.example:1",
            "http://Tools.Example:65535",
            "http://[2001:db8::1]:7000",
            "unix:/run/loopwright/a.sock",
            "unix:///run/loopwright/deep/a.sock",
        ] {
            assert!(
                allow.address(good).is_ok(),
                "{good}: {:?}",
                allow.address(good)
            );
        }
        assert_eq!(
            allow.address("unix:///run/loopwright/a").unwrap(),
            Address::Unix("/run/loopwright/a".into())
        );
    }

    #[test]
    fn everything_else_is_refused_and_the_key_is_named() {
        let allow = list(Some("/run/loopwright"), &["http://10.1.2.3:7071"]);
        for (bad, key) in [
            ("http://10.1.2.3:7072", "tools.endpoints"),
            ("http://10.1.2.4:7071", "tools.endpoints"),
            ("http://0.0.0.0:7071", "tools.endpoints"),
            ("http://[::ffff:127.0.0.1]:7071", "tools.endpoints"),
            ("http://127.1:7071", "tools.endpoints"),
            ("http://0x7f000001:7071", "tools.endpoints"),
            ("http://localhost.evil.example:7071", "tools.endpoints"),
            ("http://169.254.169.254:80", "tools.endpoints"),
            ("https://127.0.0.1:7071", "tools.endpoints"),
            ("unix:/run/loopwright", "tools.unix_dir"),
            ("unix:/run/loopwright2/a.sock", "tools.unix_dir"),
            ("unix:/etc/a.sock", "tools.unix_dir"),
        ] {
            match allow.address(bad) {
                Err(EndpointError::NotAllowed(why)) => assert!(why.contains(key), "{bad}: {why}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
        let nothing = list(None, &[]).address("unix:/run/loopwright/a.sock");
        assert!(
            matches!(nothing, Err(EndpointError::NotAllowed(why)) if why.contains("tools.unix_dir"))
        );
    }

    #[test]
    fn what_is_no_endpoint_is_told_its_form() {
        let allow = list(Some("/run/loopwright"), &[]);
        let long = format!("unix:/run/loopwright/{}", "a".repeat(100));
        for bad in [
            "",
            "127.0.0.1:7071",
            "localhost",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:7071/path",
            "http://127.0.0.1:7071?x=1",
            "http://evil@127.0.0.1:7071",
            "http://127.0.0.1:7071@evil.example:80",
            "ftp://127.0.0.1:7071",
            "unix:relative.sock",
            "unix:/run/loopwright/../../etc/a.sock",
            "unix://host/run/loopwright/a.sock",
            &long,
        ] {
            let answer = allow.address(bad);
            assert!(
                matches!(answer, Err(EndpointError::Malformed(_))),
                "{bad}: {answer:?}"
            );
        }
    }
}
