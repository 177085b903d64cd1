//! A network namespace without a name.
//!
//! A holder thread makes it and stays inside; descriptors keep it alive and
//! let other threads enter. Children are started by the holder, because the
//! kernel sends a child its parent-death signal when the *thread* that
//! started it ends.
//!
//! | held by | until |
//! |---|---|
//! | holder thread, two descriptors, a socket | [`Namespace`] is dropped, or the process ends |
//! | threads inside [`Namespace::enter`] | the closure returns |
//! | children | killed with the holder |

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{Mutex, mpsc};
use std::thread;

use anyhow::{Context as _, Result};

type Job = Box<dyn FnOnce() + Send>;

/// What the lab needs, by bit number in the kernel's capability sets.
const CAPABILITIES: [(u32, &str); 3] =
    [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// Names of the needed capabilities that this process has not.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let missing = CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 0);
    missing.map(|(_, name)| *name).collect()
}

/// See the module.
pub(super) struct Namespace {
    name: &'static str,
    network: File,
    mounts: OwnedFd,
    /// A socket of the namespace: ioctls on it act there, from any thread.
    socket: UdpSocket,
    holder_tid: i32,
    jobs: Mutex<mpsc::Sender<Job>>,
}

/// What a new holder hands over.
struct Held {
    network: File,
    mounts: File,
    socket: UdpSocket,
    tid: i32,
}

impl Namespace {
    /// Makes a namespace with `lo` down and nothing else in it.
    pub(super) fn new(name: &'static str) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, held) = mpsc::channel();
        thread::Builder::new()
            .name(format!("lab-{name}"))
            .spawn(move || match hold() {
                Ok(held) => {
                    if ready.send(Ok(held)).is_ok() {
                        inbox.into_iter().for_each(|job| job());
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .context("lab: start of a namespace's thread")?;
        let held = held.recv().context("lab: a namespace's thread ended early")?;
        let held = held.with_context(|| {
            let missing = missing_capabilities().join(", ");
            let missing = if missing.is_empty() { "none" } else { &missing };
            format!("lab: namespace {name} cannot be made (capabilities missing: {missing}); run it with sudo")
        })?;
        Ok(Self {
            name,
            network: held.network,
            mounts: held.mounts.into(),
            socket: held.socket,
            holder_tid: held.tid,
            jobs: Mutex::new(jobs),
        })
    }

    /// Inode of the network namespace.
    pub(super) fn inode(&self) -> u64 {
        self.network.metadata().map_or(0, |m| m.ino())
    }

    /// A socket of the namespace, for ioctls.
    pub(super) fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Thread that holds the namespace, a thread of this process.
    pub(super) const fn holder_tid(&self) -> i32 {
        self.holder_tid
    }

    /// Runs `f` on a thread of its own inside the namespace.
    pub(super) fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = thread::Builder::new().name(format!("lab-{}", self.name));
            let thread = inside.spawn_scoped(scope, || {
                self.join_thread()
                    .unwrap_or_else(|e| panic!("lab: cannot enter namespace {}: {e}", self.name));
                f()
            });
            match thread.expect("lab: start of a thread").join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread inside for good.
    pub(super) fn join_thread(&self) -> io::Result<()> {
        // SAFETY: no memory is involved; without CLONE_FS shared the mount
        // namespace may be changed for this thread alone.
        check(unsafe { libc::unshare(libc::CLONE_FS) })?;
        // SAFETY: an open descriptor of a network namespace.
        check(unsafe { libc::setns(self.network.as_raw_fd(), libc::CLONE_NEWNET) })?;
        // SAFETY: an open descriptor of a mount namespace.
        check(unsafe { libc::setns(self.mounts.as_raw_fd(), libc::CLONE_NEWNS) })
    }

    /// Starts a child inside, from the holder.
    pub(super) fn spawn(&self, mut command: Command) -> io::Result<LabChild> {
        die_with_parent(&mut command);
        let (answer, child) = mpsc::channel();
        let job: Job = Box::new(move || {
            let spawned = command.spawn().map(LabChild);
            drop(answer.send(spawned));
        });
        let gone = || io::Error::other("lab: the namespace's thread is gone");
        let jobs = self.jobs.lock().map_err(|_| gone())?;
        jobs.send(job).map_err(|_| gone())?;
        drop(jobs);
        child.recv().map_err(|_| gone())?
    }
}

/// Has the kernel end the command's process when the thread that starts it ends,
/// however that comes about.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let arrange = move || {
        // SAFETY: prctl with plain numbers.
        check(unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0)
        })?;
        // SAFETY: no arguments; async-signal-safe.
        let now = unsafe { libc::getppid() };
        if now.cast_unsigned() != parent {
            // It died before the signal was arranged.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure makes two async-signal-safe system calls and neither
    // allocates nor locks.
    unsafe { command.pre_exec(arrange) };
}

/// Makes the namespaces of the calling thread and opens what keeps them.
fn hold() -> io::Result<Held> {
    // SAFETY: no memory is involved; only this thread changes namespaces.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) })?;
    mount_sys()?;
    Ok(Held {
        network: File::open("/proc/thread-self/ns/net")?,
        mounts: File::open("/proc/thread-self/ns/mnt")?,
        socket: UdpSocket::bind(("0.0.0.0", 0))?,
        // SAFETY: no arguments.
        tid: unsafe { libc::gettid() },
    })
}

/// Mounts a /sys that shows this namespace's interfaces, and puts what was
/// mounted beneath the old one back into its place.
fn mount_sys() -> io::Result<()> {
    const KEPT: [&str; 2] = ["/sys/fs/bpf", "/sys/fs/cgroup"];
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    let kept = KEPT.map(|path| File::open(path).ok());
    mount(Some("sysfs"), "/sys", Some("sysfs"), 0)?;
    for (file, path) in kept.iter().zip(KEPT) {
        let Some(file) = file else { continue };
        let source = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        // Where one of them was no mount point there is nothing to keep, and
        // the bind of a directory of the old sysfs does no harm.
        mount(Some(&source), path, None, libc::MS_BIND | libc::MS_REC)?;
    }
    Ok(())
}

fn mount(source: Option<&str>, target: &str, kind: Option<&str>, flags: u64) -> io::Result<()> {
    let c = |text: &str| std::ffi::CString::new(text).map_err(io::Error::other);
    let source = source.map(c).transpose()?;
    let kind = kind.map(c).transpose()?;
    let target = c(target)?;
    let pointer =
        |text: &Option<std::ffi::CString>| text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
    let (source_at, kind_at) = (pointer(&source), pointer(&kind));
    // SAFETY: null or terminated strings that outlive the call; no data.
    check(unsafe { libc::mount(source_at, target.as_ptr(), kind_at, flags, std::ptr::null()) })
}

/// The error of a system call that says -1.
pub(super) fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A child inside a namespace; killed and reaped when dropped.
#[derive(Debug)]
pub struct LabChild(Child);

impl Deref for LabChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for LabChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for LabChild {
    fn drop(&mut self) {
        // Both fail only when the child is gone, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
