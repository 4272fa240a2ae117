//! HTTP requests of probes and hooks: short, without proxies, and trusting any certificate, as upstream documents it.
//!
//! A redirect to the same host is followed, one to another host ends the request with the redirect as its answer: a pod must not send
//! the kubelet to other places. Answers to
//! <https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#http-probes>.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use trireme_client::once;

use super::location::Location;

/// At most this much of an answer is read.
const MAX_BODY_BYTES: usize = 10 << 10;
/// As Go's client has it.
const MAX_REQUESTS: usize = 10;

/// One request, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    to: Location,
    /// Sent as they are, in their order; `Host` is among them if the pod gave one.
    headers: Vec<(String, String)>,
}

/// What came back at the end of all redirects that are followed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The beginning of the body.
    pub(crate) body: Bytes,
}

/// Why there is no answer, in Go's words.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A plain HTTP server was asked for HTTPS.
    PlainAnswer(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::PlainAnswer(text) | Failure::Other(text)) = self;
        f.write_str(text)
    }
}

/// A port by number or by its name in the container.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)) {
            Some(port) => port.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port: {name}"))?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

// === impl Request ===

impl Request {
    /// The request of an action. `purpose` is `probe` or `lifecycle` and shows in the User-Agent.
    pub(crate) fn of(action: &HTTPGetAction, container: &Container, pod_ip: &str, purpose: &str) -> Result<Request, String> {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        if host.is_empty() {
            return Err("the pod has no address yet".into());
        }
        let tls = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
        let to = Location::new(tls, host, port(&action.port, container)?, action.path.as_deref().unwrap_or_default());
        let given = action.http_headers.as_deref().unwrap_or_default();
        let named = |name: &str| given.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        let mut headers = Vec::new();
        if named("User-Agent").is_none() {
            headers.push(("User-Agent".into(), format!("kube-{purpose}/1.36")));
        }
        if named("Accept").is_none() {
            headers.push(("Accept".into(), "*/*".into()));
        }
        // An empty Accept or User-Agent means that none is sent.
        let removed = |name: &str| ["Accept", "User-Agent"].iter().any(|n| name.eq_ignore_ascii_case(n));
        let kept = given.iter().filter(|h| !(h.value.is_empty() && removed(&h.name)));
        headers.extend(kept.map(|h| (h.name.clone(), h.value.clone())));
        Ok(Request { to, headers })
    }

    /// The same request over plain HTTP and without credentials.
    pub(crate) fn without_tls(&self) -> Request {
        let headers = self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Authorization")).cloned().collect();
        Request { to: Location { tls: false, ..self.to.clone() }, headers }
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        self.to.authority()
    }

    /// The request that a redirect asks for. A Host header of the pod's own only stays while the redirect names no host.
    fn redirected(&self, location: &str) -> Result<Request, String> {
        let to = self.to.join(location)?;
        let is_absolute = Location::is_absolute(location);
        let headers = self.headers.iter().filter(|(name, _)| !(is_absolute && name.eq_ignore_ascii_case("Host"))).cloned().collect();
        Ok(Request { to, headers })
    }
}

/// Sends a request and those that it is redirected to on the same host, all within `timeout`.
pub(crate) async fn get(request: &Request, timeout: Duration) -> Result<Answer, Failure> {
    let mut current = request.clone();
    let sent = async {
        for count in 1.. {
            let answer = exchange(&current).await?;
            let location = answer.headers.get(http::header::LOCATION).and_then(|l| l.to_str().ok()).filter(|l| !l.is_empty());
            let done = |answer: once::OneAnswer| Ok(Answer { status: answer.status, body: answer.body });
            let (301 | 302 | 303 | 307 | 308, Some(location)) = (answer.status, location) else { return done(answer) };
            let next = current.redirected(location).map_err(|why| current.failed(&why))?;
            if next.to.host != request.to.host {
                return done(answer);
            }
            if count >= MAX_REQUESTS {
                return Err(next.failed(&format!("stopped after {MAX_REQUESTS} redirects")));
            }
            current = next;
        }
        Err(current.failed("too many redirects"))
    };
    match tokio::time::timeout(timeout, sent).await {
        Ok(outcome) => outcome,
        Err(_) => Err(request.failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

impl Request {
    fn failed(&self, why: &str) -> Failure {
        Failure::Other(format!("Get {:?}: {why}", self.to.to_string()))
    }
}

async fn exchange(request: &Request) -> Result<once::OneAnswer, Failure> {
    let to = &request.to;
    let tcp = dial(&to.host, to.port).await.map_err(|why| request.failed(&why))?;
    if !to.tls {
        return send(tcp, request).await.map_err(|why| request.failed(&why));
    }
    // A probe asks whether a server answers, not which one.
    let config = once::believing_anyone().map_err(|e| request.failed(&e.to_string()))?;
    let name = ServerName::try_from(to.host.clone()).map_err(|e| request.failed(&e.to_string()))?;
    match tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
        Ok(stream) => send(stream, request).await.map_err(|why| request.failed(&why)),
        Err(e) if is_plain(&e) => {
            Err(Failure::PlainAnswer(format!("Get {:?}: http: server gave HTTP response to HTTPS client", to.to_string())))
        }
        Err(e) => Err(request.failed(&e.to_string())),
    }
}

/// Whether the other side answered something that is no TLS record.
fn is_plain(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// Opens a connection; errors read as Go's do.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
            std::io::ErrorKind::HostUnreachable => "no route to host".to_string(),
            std::io::ErrorKind::TimedOut => "connection timed out".to_string(),
            _ => e.to_string(),
        };
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        format!("dial tcp {shown}:{port}: connect: {why}")
    })
}

async fn send<S>(stream: S, request: &Request) -> Result<once::OneAnswer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut message = http::Request::get(&request.to.path);
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Host")) {
        message = message.header("Host", request.to.authority());
    }
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    let message = message.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    once::exchange(stream, message, MAX_BODY_BYTES).await.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Serves fixed answers by path; what was asked is returned by `seen`.
    async fn server(answers: &'static [(&'static str, &'static str)]) -> (u16, Arc<parking_lot::Mutex<Vec<String>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
        let told = seen.clone();
        tokio::spawn(async move {
            let answers: BTreeMap<_, _> = answers.iter().copied().collect();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_string();
                told.lock().push(head);
                let answer = answers.get(path.as_str()).copied().unwrap_or("404 Not Found\r\n");
                let _ = stream.write_all(format!("HTTP/1.1 {answer}Content-Length: 2\r\n\r\nno").as_bytes()).await;
            }
        });
        (port, seen)
    }

    fn request(port: u16, extra: serde_json::Value) -> Request {
        let mut action = json!({"port": port, "host": "127.0.0.1"});
        action.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Request::of(&serde_json::from_value(action).unwrap(), &Container::default(), "127.0.0.1", "probe").unwrap()
    }

    async fn status(port: u16, path: &str) -> Result<u16, String> {
        get(&request(port, json!({"path": path})), Duration::from_secs(10)).await.map(|a| a.status).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn case_32_redirects_are_followed_on_the_same_host_only() {
        let (port, seen) = server(&[
            ("/bad", "500 Broken\r\n"),
            ("/here", "302 Found\r\nLocation: /bad\r\n"),
            ("/a/rel", "302 Found\r\nLocation: ../bad?x=1\r\n"),
            ("/bad?x=1", "200 OK\r\n"),
            ("/away", "302 Found\r\nLocation: http://elsewhere.invalid/\r\n"),
            ("/loop", "301 Moved\r\nLocation: /loop\r\n"),
            ("/nowhere", "302 Found\r\n"),
            ("/ftp", "302 Found\r\nLocation: ftp://127.0.0.1/\r\n"),
        ])
        .await;
        assert_eq!(status(port, "/here").await, Ok(500));
        assert_eq!(status(port, "a/rel#fragment").await, Ok(200));
        assert_eq!(status(port, "/away").await, Ok(302), "the redirect itself is the answer");
        assert_eq!(status(port, "/nowhere").await, Ok(302));
        assert!(status(port, "/ftp").await.unwrap_err().contains("unsupported protocol scheme"));
        seen.lock().clear();
        assert!(status(port, "/loop").await.unwrap_err().ends_with("stopped after 10 redirects"));
        assert_eq!(seen.lock().len(), 10);
    }

    #[tokio::test]
    async fn headers_are_sent_as_given_and_defaults_fill_in() {
        let (port, seen) = server(&[("/x", "200 OK\r\n")]).await;
        get(&request(port, json!({"path": "/x"})), Duration::from_secs(10)).await.unwrap();
        let headers = json!([{"name": "host", "value": "example.org"}, {"name": "Accept", "value": ""}, {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]);
        get(&request(port, json!({"path": "/x", "httpHeaders": headers})), Duration::from_secs(10)).await.unwrap();
        let seen: Vec<String> = seen.lock().iter().map(|head| head.to_lowercase()).collect();
        for part in [format!("host: 127.0.0.1:{port}\r\n").as_str(), "user-agent: kube-probe/1.36\r\n", "accept: */*\r\n"] {
            assert!(seen[0].contains(part), "{part} in {}", seen[0]);
        }
        assert!(
            seen[1].contains("host: example.org\r\n") && seen[1].contains("x-a: 1\r\n") && seen[1].contains("x-a: 2\r\n"),
            "{}",
            seen[1]
        );
        assert!(!seen[1].contains("accept:"), "{}", seen[1]);
    }

    #[tokio::test]
    async fn case_34_a_plain_server_asked_for_https_is_recognized() {
        let (port, _) = server(&[("/x", "404 Not Found\r\n")]).await;
        let request = request(port, json!({"path": "/x", "scheme": "HTTPS"}));
        assert!(matches!(get(&request, Duration::from_secs(10)).await, Err(Failure::PlainAnswer(_))));
        assert_eq!(get(&request.without_tls(), Duration::from_secs(10)).await.unwrap().status, 404);
    }
}
