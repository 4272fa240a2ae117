//! A transaction as one batch of netlink messages. The kernel applies all of it or nothing.

use super::{attributes::Attributes, elements, rule};
use crate::transaction::{Statement, Transaction};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Message types (`NFT_MSG_*`).
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// Flags of a message (`NLM_F_*`).
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// The first attribute of every message.
const TABLE: u16 = 1;

/// Larger transactions go through `nft`: they load a table, where a run of it costs little beside the rest.
const MAX_BYTES: usize = 256 << 10;
/// An attribute's length has 16 bits, with its flags out of the way.
const MAX_MESSAGE: usize = 32 << 10;

/// Encoded messages. The sequence number of a statement's message is its place among the statements, counted from 1.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// The number of statements.
    pub(super) statements: u32,
}

impl Batch {
    /// None: the transaction has statements that are not encoded here, or is large.
    pub(crate) fn of(transaction: &Transaction) -> Option<Self> {
        let count = u32::try_from(transaction.statements().len()).ok().filter(|count| *count > 0)?;
        let mut messages = Messages { bytes: Vec::new(), family: transaction.family().number() };
        messages.push(BATCH_BEGIN, REQUEST, 0, &Attributes::default());
        for (sequence, statement) in (1..).zip(transaction.statements()) {
            let (kind, flags, attributes) = message(statement, transaction.table())?;
            let acknowledge = if sequence == count { ACKNOWLEDGE } else { 0 };
            messages.push(SUBSYSTEM << 8 | kind, REQUEST | flags | acknowledge, sequence, &attributes);
            if attributes.as_bytes().len() > MAX_MESSAGE || messages.bytes.len() > MAX_BYTES {
                return None;
            }
        }
        messages.push(BATCH_END, REQUEST, count + 1, &Attributes::default());
        Some(Self { bytes: messages.bytes, statements: count })
    }
}

struct Messages {
    bytes: Vec<u8>,
    family: u8,
}

impl Messages {
    fn push(&mut self, kind: u16, flags: u16, sequence: u32, attributes: &Attributes) {
        const HEADERS: u32 = 20;
        let is_frame = matches!(kind, BATCH_BEGIN | BATCH_END);
        // Bounded by MAX_BYTES.
        let length = HEADERS + u32::try_from(attributes.as_bytes().len()).unwrap_or(u32::MAX - HEADERS);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        // Family, version and the subsystem of a batch.
        self.bytes.extend([if is_frame { 0 } else { self.family }, 0]);
        self.bytes.extend(if is_frame { SUBSYSTEM } else { 0 }.to_be_bytes());
        self.bytes.extend(attributes.as_bytes());
    }
}

/// Type, flags and attributes of a statement's message.
fn message(statement: &Statement, table: &str) -> Option<(u16, u16, Attributes)> {
    let named = |kind: u16, name: &str| Attributes::default().text(TABLE, table).text(kind, name);
    Some(match statement {
        Statement::AddChain(chain) => (NEW_CHAIN, CREATE, named(3, chain)),
        Statement::DeleteChain(chain) => (DELETE_CHAIN, 0, named(3, chain)),
        // Without a handle it removes all rules of the chain.
        Statement::FlushChain(chain) => (DELETE_RULE, 0, named(2, chain)),
        Statement::AddRule(chain, text) => (NEW_RULE, CREATE | APPEND, named(2, chain).nested(4, &rule::expressions(text)?)),
        Statement::AddSet(name, definition) => (NEW_SET, CREATE, set(named(2, name), definition)?),
        Statement::DeleteSet(set) => (DELETE_SET, 0, named(2, set)),
        Statement::AddElement(set, element) => (NEW_ELEMENT, CREATE, named(2, set).nested(3, &elements::list(element)?)),
        Statement::DeleteElement(set, key) => (DELETE_ELEMENT, 0, named(2, set).nested(3, &elements::list(key)?)),
        Statement::AddTable | Statement::DeleteTable | Statement::AddBaseChain(..) | Statement::AddMap(..) | Statement::FlushSet(_) => {
            return None;
        }
    })
}

/// A set by its definition: of addresses, of addresses with protocol and port, or of addresses that rules add and that are forgotten.
fn set(set: Attributes, definition: &str) -> Option<Attributes> {
    const IPV4_ADDRESS: u32 = 7;
    const PROTOCOL: u32 = 12;
    const SERVICE: u32 = 13;
    const TIMEOUT: u32 = 0x10;
    const DYNAMIC: u32 = 0x20;
    // Flags, type and length of the key; the number tells sets of one batch apart where a rule names none.
    let of = |flags: u32, key: u32, length: u32| set.number(3, flags).number(4, key).number(5, length).number(10, 1);
    match definition {
        "type ipv4_addr;" => Some(of(0, IPV4_ADDRESS, 4)),
        "type ipv4_addr . inet_proto . inet_service;" => Some(of(0, IPV4_ADDRESS << 12 | PROTOCOL << 6 | SERVICE, 12)),
        _ => {
            let seconds = definition.strip_prefix("type ipv4_addr; flags dynamic, timeout; timeout ")?.strip_suffix("s; size 65535;")?;
            let milliseconds = u64::from(seconds.parse::<u32>().ok()?) * 1000;
            let size = Attributes::default().number(1, 65_535);
            Some(of(TIMEOUT | DYNAMIC, IPV4_ADDRESS, 4).nested(9, &size).long(11, milliseconds))
        }
    }
}
