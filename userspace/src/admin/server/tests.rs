//! The socket file, the protocol, and what bad clients get.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::admin::client::{CallError, call};
use crate::admin::protocol::{Failure, ReplyLine};

/// A directory that is gone when the test ends.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("veltrix-admin-{}-{n}", std::process::id()));
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Default)]
struct List(RefCell<Vec<Blocked>>);

impl Handler for List {
    fn partition_move(&self, partition: u16, lane: u16) -> Result<String, String> {
        Err(format!("no log to move partition {partition} to lane {lane} of"))
    }

    fn snapshot(&self) -> Result<String, String> {
        Err("no log".into())
    }

    fn status(&self) -> Status {
        let mut status = Status { pid: 7, ..Status::default() };
        status.close();
        status
    }

    fn block_add(
        &self,
        cidr: Prefix,
        ttl: Option<Duration>,
        reason: &str,
    ) -> Result<String, String> {
        let expires_in_s = ttl.map(|ttl| ttl.as_secs());
        self.0.borrow_mut().push(Blocked { cidr, expires_in_s, reason: reason.into() });
        Ok(format!("blocked {cidr}"))
    }

    fn block_del(&self, cidr: Prefix) -> Result<String, String> {
        let mut list = self.0.borrow_mut();
        let before = list.len();
        list.retain(|blocked| blocked.cidr != cidr);
        if list.len() < before {
            Ok(format!("unblocked {cidr}"))
        } else {
            Err(format!("{cidr} is not blocked"))
        }
    }

    fn block_list(&self) -> Result<Vec<Blocked>, String> {
        Ok(self.0.borrow().clone())
    }
}

/// Runs `client` against a server at `path`.
fn with_server<T: Send>(path: &Path, client: impl FnOnce() -> T + Send) -> T {
    let socket = ControlSocket::bind(path).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            let result = client();
            let _ = stop.send(());
            result
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                served = serve(&socket, Rc::new(List::default())) => panic!("{served:?}"),
                _ = stopped => {}
            }
        });
        client.join().unwrap()
    })
}

fn raw(path: &Path, bytes: &[u8]) -> Failure {
    let mut stream = StdUnixStream::connect(path).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let answer: ReplyLine = serde_json::from_str(&answer).unwrap();
    match answer.reply {
        Reply::Error(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_and_replies() {
    let temp = Temp::new();
    let path = temp.socket();
    with_server(&path, || {
        let Reply::Status(status) = call(&path, &Request::Status).unwrap() else { panic!() };
        assert_eq!(status.pid, 7);
        assert!(status.accounting.closes);
        let cidr: Prefix = "203.0.113.0/24".parse().unwrap();
        let add = Request::BlockAdd { cidr, ttl_s: Some(900), reason: "flood".into() };
        assert_eq!(call(&path, &add).unwrap(), Reply::Done("blocked 203.0.113.0/24".into()));
        let listed = Blocked { cidr, expires_in_s: Some(900), reason: "flood".into() };
        assert_eq!(call(&path, &Request::BlockList).unwrap(), Reply::Blocks(vec![listed]));
        let del = Request::BlockDel { cidr };
        assert!(matches!(call(&path, &del).unwrap(), Reply::Done(_)));
        let Reply::Error(failure) = call(&path, &del).unwrap() else { panic!() };
        assert_eq!(failure.code, FailureCode::Refused);
    });
}

#[test]
fn bad_requests_are_answered_by_name_and_end_nobody_else() {
    let temp = Temp::new();
    let path = temp.socket();
    with_server(&path, || {
        let idle = StdUnixStream::connect(&path).unwrap();
        for (line, code, says) in [
            (&b"\n"[..], FailureCode::BadRequest, "not a request"),
            (b"", FailureCode::BadRequest, "without a newline"),
            (b"{\"v\":1", FailureCode::BadRequest, "without a newline"),
            (b"\xff\xfe\n", FailureCode::BadRequest, "not a request"),
            (b"{\"v\":2,\"request\":{\"op\":\"new\"}}\n", FailureCode::Version, "version 2"),
            (b"{\"v\":1,\"request\":{\"op\":\"stop\"}}\n", FailureCode::BadRequest, "block_add"),
            (
                b"{\"v\":1,\"request\":{\"op\":\"block_del\",\"cidr\":\"1.2.3.4/8\"}}\n",
                FailureCode::BadRequest,
                "1.0.0.0/8",
            ),
            (
                b"{\"v\":1,\"request\":{\"op\":\"block_add\",\"cidr\":\"1.2.3.4\",\"ttl_s\":0,\"reason\":\"x\"}}\n",
                FailureCode::BadRequest,
                "0 s",
            ),
            (&[b'x'; REQUEST_BYTES_MAX], FailureCode::BadRequest, "longer than"),
        ] {
            let failure = raw(&path, line);
            assert_eq!(failure.code, code, "{}", failure.message);
            assert!(failure.message.contains(says), "{}", failure.message);
        }
        drop(idle);
        assert!(matches!(call(&path, &Request::Status), Ok(Reply::Status(_))));
    });
}

#[test]
fn the_file_is_private_and_goes_with_its_owner() {
    let temp = Temp::new();
    let path = temp.socket();
    let socket = ControlSocket::bind(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&path), mode(&temp.0)), (0o600, 0o700));
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn a_live_server_is_not_disturbed_and_a_dead_one_is_replaced() {
    let temp = Temp::new();
    let path = temp.socket();
    let first = ControlSocket::bind(&path).unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(matches!(error, BindError::Live(_)));
    assert!(error.to_string().contains(path.to_str().unwrap()));
    // A killed process closes its socket and leaves the file.
    let copy = temp.0.join("copy");
    fs::hard_link(&path, &copy).unwrap();
    drop(first);
    fs::rename(&copy, &path).unwrap();
    let error = call(&path, &Request::Status).unwrap_err();
    assert!(matches!(error, CallError::NotRunning(..)), "{error}");
    drop(ControlSocket::bind(&path).unwrap());
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let temp = Temp::new();
    let path = temp.socket();
    fs::create_dir(&temp.0).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    fs::set_permissions(&temp.0, Permissions::from_mode(0o777)).unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(matches!(error, BindError::OpenDirectory(..)), "{error}");
    fs::set_permissions(&temp.0, Permissions::from_mode(0o1777)).unwrap();
    drop(ControlSocket::bind(&path).unwrap());
}

#[test]
fn no_server_names_the_socket_and_the_cure() {
    let temp = Temp::new();
    let error = call(&temp.socket(), &Request::Status).unwrap_err();
    assert!(matches!(error, CallError::NotRunning(..)));
    let text = error.to_string();
    assert!(text.contains("control.sock") && text.contains("veltrix run"), "{text}");
}
