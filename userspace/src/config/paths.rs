//! Places in the file system that a default depends on.

use std::path::PathBuf;

/// Configuration files that are looked for, in order, when none is named.
pub const FILES: [&str; 2] = ["./veltrix.toml", "/etc/veltrix/veltrix.toml"];

/// Where the control socket stands when nobody says so.
pub(super) fn default_control_socket() -> String {
    control_socket_for(effective_uid(), std::env::var("XDG_RUNTIME_DIR").ok())
}

fn control_socket_for(uid: Option<u32>, runtime_dir: Option<String>) -> String {
    match (uid, runtime_dir) {
        (Some(0), _) => "/run/veltrix/control.sock".into(),
        (_, Some(dir)) if dir.starts_with('/') => {
            PathBuf::from(dir).join("veltrix-control.sock").display().to_string()
        }
        (Some(uid), _) => format!("/tmp/veltrix-{uid}/control.sock"),
        // Without /proc the user's number is unknown; the name still tells two users apart.
        (None, _) => {
            let user = std::env::var("USER").unwrap_or_else(|_| "nobody".into());
            format!("/tmp/veltrix-{}/control.sock", user.replace('/', "_"))
        }
    }
}

/// The effective user id. Read from the text of `status` rather than from the
/// owner of `/proc/self`: that is root for a binary with file capabilities.
pub(crate) fn effective_uid() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_socket_follows_the_user() {
        let dir = || Some("/run/user/7".to_owned());
        assert_eq!(control_socket_for(Some(0), dir()), "/run/veltrix/control.sock");
        assert_eq!(control_socket_for(Some(7), dir()), "/run/user/7/veltrix-control.sock");
        assert_eq!(control_socket_for(Some(7), None), "/tmp/veltrix-7/control.sock");
        assert_eq!(control_socket_for(Some(7), Some("x".into())), "/tmp/veltrix-7/control.sock");
    }

    #[test]
    fn proc_tells_the_user() {
        assert!(effective_uid().is_some());
    }
}
