//! The image against a model that remembers everything: what each file held at its last sync, what each folder at its.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Image, Ino, Kind, ROOT};
use crate::survivors::Survivors;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Call {
    Make(usize),
    Write(usize, u64, u8, usize),
    Resize(usize, u64),
    Sync(usize),
    SyncRoot,
    Rename(usize, usize),
    Remove(usize),
    Cut,
}

fn call() -> impl Strategy<Value = Call> {
    let name = 0..NAMES.len();
    prop_oneof![
        name.clone().prop_map(Call::Make),
        (name.clone(), 0_u64..50, any::<u8>(), 1_usize..30).prop_map(|(name, at, byte, length)| Call::Write(name, at, byte, length)),
        (name.clone(), 0_u64..60).prop_map(|(name, size)| Call::Resize(name, size)),
        name.clone().prop_map(Call::Sync),
        Just(Call::SyncRoot),
        (name.clone(), name.clone()).prop_map(|(from, to)| Call::Rename(from, to)),
        name.prop_map(Call::Remove),
        Just(Call::Cut),
    ]
}

/// What is there, and what would be: names to files, and files' contents.
#[derive(Clone, Default)]
struct Model {
    names: BTreeMap<usize, Ino>,
    synced_names: BTreeMap<usize, Ino>,
    files: BTreeMap<Ino, Vec<u8>>,
    synced_files: BTreeMap<Ino, Vec<u8>>,
}

fn content(image: &Image, ino: Ino) -> Vec<u8> {
    image.read(ino, 0, usize::MAX).unwrap().to_vec()
}

fn apply(image: &mut Image, model: &mut Model, call: &Call) {
    let os = |name: usize| OsStr::new(NAMES[name]);
    match *call {
        Call::Make(name) => match image.make(ROOT, os(name), Kind::file(), 0o644, (0, 0)) {
            Ok(ino) => {
                assert!(model.names.insert(name, ino).is_none());
                model.files.insert(ino, Vec::new());
            }
            Err(_) => assert!(model.names.contains_key(&name)),
        },
        Call::Write(name, at, byte, length) => {
            let Some(ino) = model.names.get(&name) else { return };
            image.write(*ino, at, &vec![byte; length]).unwrap();
            let file = model.files.get_mut(ino).unwrap();
            file.resize(file.len().max(at as usize + length), 0);
            file[at as usize..at as usize + length].fill(byte);
        }
        Call::Resize(name, size) => {
            let Some(ino) = model.names.get(&name) else { return };
            image.resize(*ino, size).unwrap();
            model.files.get_mut(ino).unwrap().resize(size as usize, 0);
        }
        Call::Sync(name) => {
            let Some(ino) = model.names.get(&name) else { return };
            let mark = image.mark(*ino).unwrap();
            image.sync(*ino, mark).unwrap();
            model.synced_files.insert(*ino, model.files[ino].clone());
        }
        Call::SyncRoot => {
            image.sync_folder(ROOT).unwrap();
            model.synced_names.clone_from(&model.names);
        }
        Call::Rename(from, to) => {
            let result = image.rename((ROOT, os(from)), (ROOT, os(to)), true);
            assert_eq!(result.is_ok(), model.names.contains_key(&from));
            if let Some(ino) = model.names.get(&from).copied().filter(|_| from != to) {
                model.names.remove(&from);
                model.names.insert(to, ino);
            }
        }
        Call::Remove(name) => {
            assert_eq!(image.remove(ROOT, os(name), false).is_ok(), model.names.remove(&name).is_some());
        }
        Call::Cut => {
            image.lose(Survivors::Nothing, &mut StdRng::seed_from_u64(1));
            model.names.clone_from(&model.synced_names);
            model.files = model.names.values().map(|ino| (*ino, model.synced_files.get(ino).cloned().unwrap_or_default())).collect();
        }
    }
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written_and_after_a_cut_what_was_synced(calls in prop::collection::vec(call(), 1..80)) {
        let mut image = Image::new(1 << 20);
        let mut model = Model::default();
        for call in &calls {
            apply(&mut image, &mut model, call);
            let names: BTreeMap<String, Ino> = image.names(ROOT).unwrap().map(|(name, ino)| (name.to_str().unwrap().to_owned(), ino)).collect();
            let wanted: BTreeMap<String, Ino> = model.names.iter().map(|(name, ino)| (NAMES[*name].to_owned(), *ino)).collect();
            prop_assert_eq!(names, wanted, "after {:?}", call);
            for ino in model.names.values() {
                prop_assert_eq!(&content(&image, *ino), &model.files[ino], "after {:?}", call);
            }
            let used: u64 = model.names.values().map(|ino| model.files[ino].len() as u64).sum();
            prop_assert_eq!(image.used(), used, "after {:?}", call);
        }
    }
}

#[test]
fn what_is_never_synced_is_written_back_in_time_and_bounded() {
    let mut image = Image::new(1 << 30);
    let ino = image.make(ROOT, OsStr::new("f"), Kind::file(), 0o644, (0, 0)).unwrap();
    image.sync_folder(ROOT).unwrap();
    for chunk in 0..40 {
        image.write(ino, chunk << 20, &vec![7; 1 << 20]).unwrap();
    }
    let loss = image.lose(Survivors::Nothing, &mut StdRng::seed_from_u64(1));
    assert_eq!((content(&image, ino).len(), loss.bytes), (32 << 20, 8 << 20));
}
