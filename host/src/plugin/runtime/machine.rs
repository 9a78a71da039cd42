//! The size of the machine's memory.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Returns the bytes that the process can have at most: the limit of its cgroups, or else the memory of the machine.
/// `None` if the operating system does not tell it as Linux does.
pub(crate) fn memory() -> Option<usize> {
    memory_of(Path::new("/"))
}

fn memory_of(root: &Path) -> Option<usize> {
    let limits = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = limits.lines().flat_map(|line| limits_of(root, line));
    limits.chain(machine(root)).min()
}

/// Reads the memory of the machine from `MemTotal:       16303428 kB`.
fn machine(root: &Path) -> Option<usize> {
    let text = read_to_string(root.join("proc/meminfo")).ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
    kibibytes.trim().parse::<usize>().ok()?.checked_mul(1 << 10)
}

/// Returns the limits of one cgroup, from a line like `0::/system.slice/hotgate.service`, and of all cgroups above it.
/// In a container, only the limit of the topmost cgroup can be read: the path is a path of the machine, which is not
/// there.
fn limits_of(root: &Path, line: &str) -> Vec<usize> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (folder, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let path = PathBuf::from(path.trim_start_matches('/'));
    let limit = |group: &Path| read_to_string(root.join(folder).join(group).join(file)).ok()?.trim().parse().ok();
    path.ancestors().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        memory_of(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemFree:  1 kB\nMemTotal:       16303428 kB\nMemFree:  1 kB\n");

    #[test]
    fn the_tightest_cgroup_counts_or_else_the_machine() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[MACHINE]), Some(16_303_428 << 10));
        let group = ("proc/self/cgroup", "0::/a.slice/b.service\n");
        let (own, above) = ("sys/fs/cgroup/a.slice/b.service/memory.max", "sys/fs/cgroup/a.slice/memory.max");
        assert_eq!(found(&[MACHINE, group, (own, "max\n"), (above, "max\n")]), Some(16_303_428 << 10));
        assert_eq!(found(&[MACHINE, group, (own, "4096\n"), (above, "max\n")]), Some(4096));
        assert_eq!(found(&[MACHINE, group, (own, "max\n"), (above, "8192\n")]), Some(8192));
    }

    #[test]
    fn so_does_the_limit_of_a_container() {
        let unified = [MACHINE, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "1048576\n")];
        assert_eq!(found(&unified), Some(1 << 20));
        let groups = ("proc/self/cgroup", "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n");
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
        assert_eq!(found(&[MACHINE, groups, limit]), Some(2 << 20));
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found(&[MACHINE, groups, none]), Some(16_303_428 << 10));
    }
}
