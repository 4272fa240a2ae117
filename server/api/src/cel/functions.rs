//! The functions that expressions may call: name, form, number of arguments, type of the result.
//!
//! Answers to <https://kubernetes.io/docs/reference/using-api/cel/#cel-community-libraries>. A function that is not listed here is an
//! undeclared reference when a policy is written, so that no evaluation fails later because the function is missing.

use super::types::Type;

/// What is called: a function, a method, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Function,
    Method,
    Both,
}

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    Strings,
    Ints,
    /// What the target is.
    Target,
    /// The element of the list that is the target.
    Element,
    /// An optional of the element of the target.
    OptionalElement,
    /// The value of the optional that is the target.
    Inner,
    /// An optional of the first argument.
    OptionalArgument,
    /// A type of a library.
    Named(&'static str),
}

use Form::{Both, Function, Method};

/// Name, form, least and most number of arguments (a method's target is none of them, except where it is both), result.
const TABLE: &[(&str, Form, usize, usize, Gives)] = &[
    // The language.
    ("size", Both, 1, 1, Gives::Int),
    ("contains", Method, 1, 1, Gives::Bool),
    ("startsWith", Method, 1, 1, Gives::Bool),
    ("endsWith", Method, 1, 1, Gives::Bool),
    ("matches", Both, 2, 2, Gives::Bool),
    ("bool", Function, 1, 1, Gives::Bool),
    ("int", Function, 1, 1, Gives::Int),
    ("uint", Function, 1, 1, Gives::Uint),
    ("double", Function, 1, 1, Gives::Double),
    ("string", Both, 1, 1, Gives::String),
    ("bytes", Function, 1, 1, Gives::Bytes),
    ("duration", Function, 1, 1, Gives::Duration),
    ("timestamp", Function, 1, 1, Gives::Timestamp),
    ("type", Function, 1, 1, Gives::Dyn),
    ("dyn", Function, 1, 1, Gives::Dyn),
    ("getFullYear", Method, 0, 0, Gives::Int),
    ("getMonth", Method, 0, 0, Gives::Int),
    ("getDayOfYear", Method, 0, 0, Gives::Int),
    ("getDayOfMonth", Method, 0, 0, Gives::Int),
    ("getDate", Method, 0, 0, Gives::Int),
    ("getDayOfWeek", Method, 0, 0, Gives::Int),
    ("getHours", Method, 0, 0, Gives::Int),
    ("getMinutes", Method, 0, 0, Gives::Int),
    ("getSeconds", Method, 0, 0, Gives::Int),
    ("getMilliseconds", Method, 0, 0, Gives::Int),
    // Optionals.
    ("optional.none", Function, 0, 0, Gives::Dyn),
    ("optional.of", Function, 1, 1, Gives::OptionalArgument),
    ("optional.ofNonZeroValue", Function, 1, 1, Gives::OptionalArgument),
    ("value", Method, 0, 0, Gives::Inner),
    ("hasValue", Method, 0, 0, Gives::Bool),
    ("or", Method, 1, 1, Gives::Target),
    ("orValue", Method, 1, 1, Gives::Inner),
    // Strings.
    ("charAt", Method, 1, 1, Gives::String),
    ("indexOf", Method, 1, 2, Gives::Int),
    ("lastIndexOf", Method, 1, 2, Gives::Int),
    ("lowerAscii", Method, 0, 0, Gives::String),
    ("upperAscii", Method, 0, 0, Gives::String),
    ("replace", Method, 2, 3, Gives::String),
    ("split", Method, 1, 2, Gives::Strings),
    ("substring", Method, 1, 2, Gives::String),
    ("trim", Method, 0, 0, Gives::String),
    ("join", Method, 0, 1, Gives::String),
    ("strings.quote", Function, 1, 1, Gives::String),
    ("format", Method, 1, 1, Gives::String),
    ("find", Method, 1, 1, Gives::String),
    ("findAll", Method, 1, 2, Gives::Strings),
    ("base64.encode", Function, 1, 1, Gives::String),
    ("base64.decode", Function, 1, 1, Gives::Bytes),
    // Lists and sets.
    ("isSorted", Method, 0, 0, Gives::Bool),
    ("sum", Method, 0, 0, Gives::Element),
    ("min", Method, 0, 0, Gives::Element),
    ("max", Method, 0, 0, Gives::Element),
    ("slice", Method, 2, 2, Gives::Target),
    ("sort", Method, 0, 0, Gives::Target),
    ("flatten", Method, 0, 1, Gives::Dyn),
    ("reverse", Method, 0, 0, Gives::Target),
    ("distinct", Method, 0, 0, Gives::Target),
    ("first", Method, 0, 0, Gives::OptionalElement),
    ("last", Method, 0, 0, Gives::OptionalElement),
    ("lists.range", Function, 1, 1, Gives::Ints),
    ("sets.contains", Function, 2, 2, Gives::Bool),
    ("sets.equivalent", Function, 2, 2, Gives::Bool),
    ("sets.intersects", Function, 2, 2, Gives::Bool),
    // URLs.
    ("url", Function, 1, 1, Gives::Named("kubernetes.URL")),
    ("isURL", Function, 1, 1, Gives::Bool),
    ("getScheme", Method, 0, 0, Gives::String),
    ("getHost", Method, 0, 0, Gives::String),
    ("getHostname", Method, 0, 0, Gives::String),
    ("getPort", Method, 0, 0, Gives::String),
    ("getEscapedPath", Method, 0, 0, Gives::String),
    ("getQuery", Method, 0, 0, Gives::Dyn),
    // Addresses.
    ("ip", Both, 1, 1, Gives::Named("net.IP")),
    ("isIP", Function, 1, 1, Gives::Bool),
    ("ip.isCanonical", Function, 1, 1, Gives::Bool),
    ("family", Method, 0, 0, Gives::Int),
    ("isLoopback", Method, 0, 0, Gives::Bool),
    ("isUnspecified", Method, 0, 0, Gives::Bool),
    ("isLinkLocalMulticast", Method, 0, 0, Gives::Bool),
    ("isLinkLocalUnicast", Method, 0, 0, Gives::Bool),
    ("isGlobalUnicast", Method, 0, 0, Gives::Bool),
    ("cidr", Function, 1, 1, Gives::Named("net.CIDR")),
    ("isCIDR", Function, 1, 1, Gives::Bool),
    ("containsIP", Method, 1, 1, Gives::Bool),
    ("containsCIDR", Method, 1, 1, Gives::Bool),
    ("prefixLength", Method, 0, 0, Gives::Int),
    ("masked", Method, 0, 0, Gives::Named("net.CIDR")),
    // Quantities and versions.
    ("quantity", Function, 1, 1, Gives::Named("kubernetes.Quantity")),
    ("isQuantity", Function, 1, 1, Gives::Bool),
    ("isInteger", Method, 0, 0, Gives::Bool),
    ("asInteger", Method, 0, 0, Gives::Int),
    ("asApproximateFloat", Method, 0, 0, Gives::Double),
    ("sign", Method, 0, 0, Gives::Int),
    ("add", Method, 1, 1, Gives::Named("kubernetes.Quantity")),
    ("sub", Method, 1, 1, Gives::Named("kubernetes.Quantity")),
    ("isGreaterThan", Method, 1, 1, Gives::Bool),
    ("isLessThan", Method, 1, 1, Gives::Bool),
    ("compareTo", Method, 1, 1, Gives::Int),
    ("semver", Function, 1, 2, Gives::Named("kubernetes.Semver")),
    ("isSemver", Function, 1, 2, Gives::Bool),
    ("major", Method, 0, 0, Gives::Int),
    ("minor", Method, 0, 0, Gives::Int),
    ("patch", Method, 0, 0, Gives::Int),
    // Formats.
    ("format.named", Function, 1, 1, Gives::Dyn),
    ("format.dns1123Label", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.dns1123Subdomain", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.dns1035Label", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.dns1123LabelPrefix", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.dns1123SubdomainPrefix", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.dns1035LabelPrefix", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.qualifiedName", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.labelValue", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.uri", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.uuid", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.byte", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.date", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("format.datetime", Function, 0, 0, Gives::Named("kubernetes.NamedFormat")),
    ("validate", Method, 1, 1, Gives::Dyn),
    // Patches.
    ("jsonpatch.escapeKey", Function, 1, 1, Gives::String),
    // The authorizer.
    ("path", Method, 1, 1, Gives::Named("kubernetes.authorization.PathCheck")),
    ("group", Method, 1, 1, Gives::Named("kubernetes.authorization.GroupCheck")),
    ("serviceAccount", Method, 2, 2, Gives::Named("kubernetes.authorization.Authorizer")),
    ("resource", Method, 1, 1, Gives::Named("kubernetes.authorization.ResourceCheck")),
    ("subresource", Method, 1, 1, Gives::Named("kubernetes.authorization.ResourceCheck")),
    ("namespace", Method, 1, 1, Gives::Named("kubernetes.authorization.ResourceCheck")),
    ("name", Method, 1, 1, Gives::Named("kubernetes.authorization.ResourceCheck")),
    ("fieldSelector", Method, 1, 1, Gives::Named("kubernetes.authorization.ResourceCheck")),
    ("labelSelector", Method, 1, 1, Gives::Named("kubernetes.authorization.ResourceCheck")),
    ("check", Method, 1, 1, Gives::Named("kubernetes.authorization.Decision")),
    ("allowed", Method, 0, 0, Gives::Bool),
    ("reason", Method, 0, 0, Gives::String),
    ("errored", Method, 0, 0, Gives::Bool),
    ("error", Method, 0, 0, Gives::String),
];

/// Functions on times that take a time zone upstream.
const ZONED: [&str; 10] = [
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// Whether there is a function of this name.
pub fn is_known(name: &str) -> bool {
    TABLE.iter().any(|(known, ..)| *known == name)
}

/// The result type of a call.
///
/// # Errors
/// Why it cannot be called so.
pub fn result(name: &str, target: Option<&Type>, args: &[Type]) -> Result<Type, String> {
    let Some((_, form, least, most, result)) = TABLE.iter().find(|(known, ..)| *known == name) else {
        return Err(format!("undeclared reference to '{name}' (in container '')"));
    };
    if ZONED.contains(&name) && args.len() == 1 {
        return Err(format!("{name} with a time zone is not supported by this server"));
    }
    let (form_fits, counted) = match (form, target) {
        (Function, None) | (Method, Some(_)) => (true, args.len()),
        (Both, _) => (true, args.len() + usize::from(target.is_some())),
        _ => (false, args.len()),
    };
    let fits = form_fits && (*least..=*most).contains(&counted);
    if !fits {
        let shown: Vec<String> = target.into_iter().chain(args).map(ToString::to_string).collect();
        let applied = match target {
            Some(_) => format!("{}.({})", shown.first().map_or("", String::as_str), shown.get(1..).unwrap_or_default().join(", ")),
            None => format!("({})", shown.join(", ")),
        };
        return Err(format!("found no matching overload for '{name}' applied to '{applied}'"));
    }
    Ok(result.of(target, args))
}

impl Gives {
    fn of(self, target: Option<&Type>, args: &[Type]) -> Type {
        let first = || args.first().cloned().unwrap_or(Type::Dyn);
        match (self, target) {
            (Gives::Bool, _) => Type::Bool,
            (Gives::Int, _) => Type::Int,
            (Gives::Uint, _) => Type::Uint,
            (Gives::Double, _) => Type::Double,
            (Gives::String, _) => Type::String,
            (Gives::Bytes, _) => Type::Bytes,
            (Gives::Duration, _) => Type::Duration,
            (Gives::Timestamp, _) => Type::Timestamp,
            (Gives::Strings, _) => Type::list(Type::String),
            (Gives::Ints, _) => Type::list(Type::Int),
            (Gives::Target, Some(target)) => target.clone(),
            (Gives::Element, Some(Type::List(element))) => (**element).clone(),
            (Gives::OptionalElement, Some(Type::List(element))) => Type::optional((**element).clone()),
            (Gives::Inner, Some(Type::Optional(value))) => value.joined(&first()),
            (Gives::Inner, _) => first(),
            (Gives::OptionalArgument, _) => Type::optional(first()),
            (Gives::Named(name), _) => Type::named(name),
            _ => Type::Dyn,
        }
    }
}
