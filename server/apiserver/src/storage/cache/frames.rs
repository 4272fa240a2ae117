//! The frames of one change in forms other than the stored one, each made by the watcher that asks first and shared by the others.
//!
//! They live as long as the change stays in a window or on its way to a watcher; objects at rest keep no second form.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::storage::cache::object::EventType;

/// Forms kept for one change. Clients ask for few; what comes later is encoded for each.
const MOST_FORMS: usize = 6;

/// The encoding of a frame: the frames of one change differ in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether it is in protobuf; else in JSON.
    pub protobuf: bool,
    /// The apiVersion of a PartialObjectMetadata; none for the whole object.
    pub metadata_only: Option<&'static str>,
    /// The object's apiVersion.
    pub api_version: Arc<str>,
}

/// The frames that have been made.
#[derive(Debug, Default)]
pub struct Frames {
    made: Mutex<Vec<(EventType, Shape, Bytes)>>,
}

impl Frames {
    /// The frame of an event type and shape; made by `make` if there is none. Two watchers that ask at the same moment may both make it.
    pub fn get_or_make<E>(&self, event_type: EventType, shape: &Shape, make: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        if let Some(frame) = self.get(event_type, shape) {
            return Ok(frame);
        }
        let frame = make()?;
        let mut made = self.made.lock();
        if made.len() < MOST_FORMS {
            made.push((event_type, shape.clone(), frame.clone()));
        }
        Ok(frame)
    }

    fn get(&self, event_type: EventType, shape: &Shape) -> Option<Bytes> {
        let made = self.made.lock();
        made.iter().find(|(of, made_shape, _)| *of == event_type && made_shape == shape).map(|(_, _, frame)| frame.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shape(api_version: &str) -> Shape {
        Shape { protobuf: true, metadata_only: None, api_version: api_version.into() }
    }

    #[test]
    fn a_frame_is_made_once_for_each_shape() {
        let frames = Frames::default();
        let make = |text: &'static str| move || Ok::<_, ()>(Bytes::from_static(text.as_bytes()));
        let v1 = shape("v1");
        assert_eq!(frames.get_or_make(EventType::Added, &v1, make("a")).unwrap(), "a");
        assert_eq!(frames.get_or_make(EventType::Added, &v1, || Err(())).unwrap(), "a");
        assert_eq!(frames.get_or_make(EventType::Modified, &v1, make("b")).unwrap(), "b");
        assert_eq!(frames.get_or_make(EventType::Added, &Shape { protobuf: false, ..v1.clone() }, make("c")).unwrap(), "c");
        let metadata = Shape { metadata_only: Some("meta.k8s.io/v1"), ..v1.clone() };
        assert_eq!(frames.get_or_make(EventType::Added, &metadata, make("d")).unwrap(), "d");
        assert_eq!(frames.get_or_make(EventType::Added, &v1, || Err(())).unwrap(), "a");
    }

    #[test]
    fn what_a_change_keeps_is_bounded_and_a_failure_is_not_kept() {
        let frames = Frames::default();
        assert!(frames.get_or_make(EventType::Added, &shape("v0"), || Err(())).is_err());
        for n in 0..20 {
            frames.get_or_make(EventType::Added, &shape(&format!("v{n}")), || Ok::<_, ()>(Bytes::new())).unwrap();
        }
        assert_eq!(frames.made.lock().len(), MOST_FORMS);
    }
}
