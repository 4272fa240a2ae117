//! Requests that no client should send: they get upstream's code, reason and words, and the server keeps working.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use trireme_e2e::process::{Place, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What bad requests may leave behind in memory, in KiB.
const GROWTH_KIB: u64 = 96 * 1024;

fn post<'a>(target: &'a str, content_type: &'a str, body: &'a str) -> Vec<&'a str> {
    vec!["-X", "POST", "-H", content_type, "--data-binary", body, target]
}

fn still_serves(server: &Server<'_>, what: &str) -> anyhow::Result<()> {
    ensure!(server.is_ready(), "{what}: not ready any more");
    let name = what.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_lowercase();
    let map = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"after-{name}"}}}}"#);
    let made = server.admin(&post(MAPS, "Content-Type: application/json", &map))?;
    ensure!(made.code == 201, "{what}: a good request after it: {made:?}");
    Ok(())
}

#[test]
fn bad_requests_get_upstreams_answer() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = place.server(&[])?;
    let json = "Content-Type: application/json";
    let deep = place.path("deep.json");
    fs::write(&deep, format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"data\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000)))?;
    let deep = format!("@{}", deep.display());
    let big = place.path("big.json");
    fs::write(
        &big,
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"big"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20)),
    )?;
    let big = format!("@{}", big.display());
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let unknown = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dat":{}}"#;
    let twice = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1","a":"2"}}"#;
    let good = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#;
    for (what, args, code, reason, message) in [
        ("malformed JSON", post(MAPS, json, "{\"kind\": nope"), 400, "BadRequest", ""),
        ("no object", post(MAPS, json, "[]"), 400, "BadRequest", ""),
        ("empty body", post(MAPS, json, ""), 400, "BadRequest", ""),
        ("not UTF-8", post(MAPS, json, "{\"kind\":\"\u{fffd}"), 400, "BadRequest", ""),
        ("absurdly nested", post(MAPS, json, &deep), 400, "BadRequest", ""),
        ("too large", post(MAPS, json, &big), 413, "RequestEntityTooLarge", "limit is 3145728"),
        ("unknown field", post(&strict, json, unknown), 400, "BadRequest", "strict decoding error: unknown field \"dat\""),
        ("duplicate field", post(&strict, json, twice), 400, "BadRequest", "strict decoding error: duplicate field \"data.a\""),
        ("bad fieldValidation", post(&format!("{MAPS}?fieldValidation=Maybe"), json, good), 422, "Invalid", "fieldValidation"),
        ("wrong kind", post(MAPS, json, r#"{"apiVersion":"v1","kind":"Secret"}"#), 400, "BadRequest", "Secret"),
        ("wrong content type", post(MAPS, "Content-Type: text/plain", good), 415, "UnsupportedMediaType", "application/json"),
        ("wrong accept", vec!["-H", "Accept: image/png", MAPS], 406, "NotAcceptable", "application/json"),
        (
            "wrong patch type",
            vec!["-X", "PATCH", "-H", "Content-Type: application/x", "--data", "{}", "/api/v1/namespaces/default"],
            415,
            "UnsupportedMediaType",
            "415: Unsupported Media Type",
        ),
        ("bad label selector", vec!["/api/v1/pods?labelSelector=a%3D%3D%3Db"], 400, "BadRequest", "unable to parse requirement"),
        ("bad field selector", vec!["/api/v1/pods?fieldSelector=spec.nope%3Dx"], 400, "BadRequest", "field label not supported: spec.nope"),
        ("bad limit", vec!["/api/v1/pods?limit=abc"], 400, "BadRequest", "parsing \"abc\": invalid syntax"),
        ("bad continue", vec!["/api/v1/pods?limit=1&continue=%21%21"], 400, "BadRequest", "continue key is not valid"),
        ("bad resourceVersion", vec!["/api/v1/pods?resourceVersion=abc"], 400, "BadRequest", "abc"),
        (
            "unknown resource",
            vec!["/api/v1/namespaces/default/widgets"],
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        ("unknown object", vec!["/api/v1/namespaces/default/configmaps/nope"], 404, "NotFound", "configmaps \"nope\" not found"),
        (
            "wrong method",
            vec!["-X", "POST", "--data", "{}", "-H", json, "/api/v1/namespaces/default/configmaps/x"],
            405,
            "MethodNotAllowed",
            "",
        ),
        (
            "bad name",
            post(MAPS, json, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"A_b"}}"#),
            422,
            "Invalid",
            "metadata.name: Invalid value",
        ),
    ] {
        server.admin(&args).and_then(|answer| answer.must_refuse(what, code, reason, message)).with_context(|| what.to_owned())?;
    }
    // As upstream has it: the paths of a group that does not exist do not exist either.
    let unknown = server.admin(&["/apis/nope.example/v1/x"])?;
    ensure!((unknown.code, unknown.body.as_str()) == (404, "404 page not found\n"), "{unknown:?}");
    still_serves(&server, "bad requests")?;
    server.stop()?;
    Ok(())
}

#[test]
fn foreign_and_expired_certificates_get_a_status() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = place.server(&[])?;
    server.curl(&["/api/v1/namespaces"])?.must_refuse("nobody", 401, "Unauthorized", "Unauthorized")?;
    server.curl(&["-H", "Authorization: Bearer nope", "/version"])?.must_refuse("wrong token", 401, "Unauthorized", "Unauthorized")?;

    // A certificate with the name of our administrator, signed by a foreign authority.
    openssl(&place, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=foreign -days 2")?;
    openssl(
        &place,
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.key -out k.csr -subj /O=system:masters/CN=admin",
    )?;
    // Version 3, as every certificate that TLS libraries take: without an extension openssl makes version 1.
    fs::write(place.path("v3"), "extendedKeyUsage=clientAuth\n")?;
    openssl(&place, "x509 -req -extfile v3 -in k.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out foreign.crt -days 1")?;
    // The cluster's own authority, but a certificate whose time is over.
    let keys: serde_json::Value = serde_json::from_slice(&fs::read(server.file("cred/cluster-keys.json"))?)?;
    let key = find_client_key(&keys).context("no key of the client CA in cluster-keys.json")?;
    fs::write(place.path("client-ca.key"), key)?;
    fs::copy(server.file("tls/client-ca.crt"), place.path("client-ca.crt"))?;
    fs::write(place.path("index"), "")?;
    fs::write(place.path("serial"), "01\n")?;
    fs::write(
        place.path("ca.cnf"),
        "[ca]\ndefault_ca=d\n[d]\nunique_subject=no\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n[p]\nCN=supplied\nO=optional\n[e]\nextendedKeyUsage=clientAuth\n",
    )?;
    let ca = "ca -batch -config ca.cnf -cert client-ca.crt -keyfile client-ca.key -in k.csr -preserveDN";
    openssl(&place, &format!("{ca} -out expired.crt -startdate 20200101000000Z -enddate 20200102000000Z"))?;
    openssl(&place, &format!("{ca} -out good.crt -days 1"))?;
    let with = |name: &str| {
        server.curl(&[
            "--cert",
            &place.path(name).display().to_string(),
            "--key",
            &place.path("k.key").display().to_string(),
            "/api/v1/namespaces",
        ])
    };
    // The one that must be let in shows that the two others are refused for the right reason.
    let good = with("good.crt")?;
    ensure!(good.code == 200, "{good:?}");
    with("foreign.crt")?.must_refuse("foreign certificate", 401, "Unauthorized", "Unauthorized")?;
    with("expired.crt")?.must_refuse("expired certificate", 401, "Unauthorized", "Unauthorized")?;
    still_serves(&server, "certificates")?;
    Ok(())
}

#[test]
fn garbage_floods_and_silence_do_no_harm() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = place.server(&[])?;
    let before = server.rss_kib()?;

    // Bytes that are no TLS.
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 0x03, 0x01, 0xff, 0xff, 0x00], &[0; 4096]] {
        let mut stream = TcpStream::connect(("127.0.0.1", place.https_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(garbage)?;
        // The peer closes, whether it says something before or not.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    // Bytes inside TLS that are no HTTP.
    for garbage in [
        "\0\u{1}\u{2}garbage\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /api HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        "POST /api HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = s_client(&server)?;
        write_to(&mut client, garbage.as_bytes())?;
        let answer = client.wait_with_output()?;
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        ensure!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{garbage:?}: {said}");
    }
    still_serves(&server, "garbage")?;

    // Ten thousand headers, and one header of two megabytes.
    let headers: String = (0..10_000).map(|i| format!("x-h-{i}: {i}\r\n")).collect();
    let long = format!("x-long: {}\r\n", "a".repeat(2 << 20));
    for headers in [headers, long] {
        let mut client = s_client(&server)?;
        // The server may close before all of it is written.
        let _ = write_to(&mut client, format!("GET /version HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes());
        let answer = client.wait_with_output()?;
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        ensure!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    }
    still_serves(&server, "headers")?;

    // Many that connect and say nothing, or say it slowly: the others are served meanwhile.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(("127.0.0.1", place.https_port))?);
    }
    let mut slow = s_client(&server)?;
    write_some(&mut slow, b"GET /version HTTP/1.1\r\nhost: a\r\nx-slow: ")?;
    still_serves(&server, "silent ones")?;
    // And they are not waited for longer than a handshake, or the head of a request, may take.
    let end = Instant::now() + Duration::from_secs(50);
    let mut last = silent.pop().context("a connection")?;
    last.set_read_timeout(Some(Duration::from_secs(30)))?;
    ensure!(matches!(last.read(&mut [0]), Ok(0) | Err(_)) && Instant::now() < end - Duration::from_secs(20), "a silent connection is kept");
    while slow.try_wait()?.is_none() {
        ensure!(Instant::now() < end, "a request whose head never ends is kept");
        std::thread::sleep(Duration::from_millis(200));
    }

    // Large bodies, one after the other and at once, none of them kept.
    let big = place.path("big");
    fs::write(&big, vec![b'x'; 8 << 20])?;
    let data = format!("@{}", big.display());
    std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    for _ in 0..3 {
                        server.admin(&post(MAPS, "Content-Type: application/json", &data))?.must_refuse(
                            "8 MiB",
                            413,
                            "RequestEntityTooLarge",
                            "3145728",
                        )?;
                    }
                    Ok(())
                })
            })
            .collect();
        tries.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a panic"))?)
    })?;
    still_serves(&server, "large bodies")?;
    let after = server.rss_kib()?;
    ensure!(after < before + GROWTH_KIB, "memory grew from {before} to {after} KiB");
    server.stop()?;
    Ok(())
}

/// openssl in the place's folder.
fn openssl(place: &Place, args: &str) -> anyhow::Result<()> {
    let output =
        Command::new("openssl").args(args.split(' ')).current_dir(place.path("")).stdin(Stdio::null()).output().context("run openssl")?;
    ensure!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A TLS connection to the server, with its ends on pipes.
fn s_client(server: &Server<'_>) -> anyhow::Result<Child> {
    let address = server.url().trim_start_matches("https://").to_owned();
    let mut command = Command::new("timeout");
    command.args(["60", "openssl", "s_client", "-quiet", "-no_ign_eof", "-alpn", "http/1.1", "-connect", &address]);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// Writes and closes.
fn write_to(child: &mut Child, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(child.stdin.take().context("stdin")?.write_all(bytes)?)
}

/// Writes and keeps the connection.
fn write_some(child: &mut Child, bytes: &[u8]) -> anyhow::Result<()> {
    let stdin = child.stdin.as_mut().context("stdin")?;
    stdin.write_all(bytes)?;
    Ok(stdin.flush()?)
}

/// The private key of the client authority, wherever the file keeps it.
fn find_client_key(keys: &serde_json::Value) -> Option<String> {
    let authority = keys.as_object()?.iter().find(|(name, _)| name.contains("client_ca") && !name.contains("etcd"))?.1;
    authority.as_object()?.values().find_map(|v| v.as_str().filter(|s| s.contains("PRIVATE KEY")).map(str::to_owned))
}
