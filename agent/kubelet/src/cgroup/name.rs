//! A cgroup's place in the tree, and how each driver spells it. Pure.
//!
//! Answers to systemd.slice(5): a slice's name holds its parents' names, joined by `-`.

/// A cgroup as the path of its names, without the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(Vec<String>);

impl Name {
    /// `/a/b`, as an option names it.
    pub(crate) fn parse(path: &str) -> Name {
        Name(path.split('/').filter(|part| !part.is_empty()).map(str::to_string).collect())
    }

    /// A cgroup below this one.
    pub(crate) fn child(&self, name: &str) -> Name {
        Name(self.0.iter().cloned().chain([name.to_string()]).collect())
    }

    /// `a/b`, below the mount point of the tree.
    pub(crate) fn cgroupfs(&self) -> String {
        self.0.join("/")
    }

    /// `a-b.slice`
    pub(crate) fn unit(&self) -> String {
        unit(&self.0)
    }

    /// The unit in which this one is, if it is not the root.
    pub(crate) fn parent_unit(&self) -> String {
        self.0.split_last().map_or_else(|| unit(&[]), |(_, parents)| unit(parents))
    }

    /// `a.slice/a-b.slice`, below the mount point of the tree.
    pub(crate) fn slices(&self) -> String {
        (1..=self.0.len()).map(|count| unit(&self.0[..count])).collect::<Vec<_>>().join("/")
    }
}

fn unit(parts: &[String]) -> String {
    if parts.is_empty() {
        return "-.slice".into();
    }
    // A dash separates levels, so none may be inside a name.
    let escaped: Vec<String> = parts.iter().map(|part| part.replace('-', "_")).collect();
    format!("{}.slice", escaped.join("-"))
}

/// The UID of the pod whose cgroup has this directory name, whichever driver made it.
pub(crate) fn pod_uid(directory: &str) -> Option<String> {
    match directory.strip_suffix(".slice") {
        Some(slice) => slice.rsplit('-').next()?.strip_prefix("pod").map(|uid| uid.replace('_', "-")),
        None => directory.strip_prefix("pod").map(str::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_names_are_spelled_as_each_driver_wants_them() {
        let pod = Name::parse("/").child("kubepods").child("burstable").child("pod1-2-3");
        assert_eq!(pod.cgroupfs(), "kubepods/burstable/pod1-2-3");
        assert_eq!(pod.slices(), "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2_3.slice");
        assert_eq!((pod.unit().as_str(), pod.parent_unit().as_str()), ("kubepods-burstable-pod1_2_3.slice", "kubepods-burstable.slice"));
        let nested = Name::parse("/my-root").child("kubepods");
        assert_eq!((nested.cgroupfs().as_str(), nested.slices().as_str()), ("my-root/kubepods", "my_root.slice/my_root-kubepods.slice"));
        assert_eq!(Name::parse("").child("kubepods").parent_unit(), "-.slice");
        assert_eq!(pod_uid("kubepods-burstable-pod1_2_3.slice").as_deref(), Some("1-2-3"));
        assert_eq!((pod_uid("pod1-2").as_deref(), pod_uid("burstable"), pod_uid("kubepods-burstable.slice")), (Some("1-2"), None, None));
    }
}
