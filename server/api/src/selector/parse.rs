//! The grammar of label selector strings.
//!
//! A token is a run of special symbols (longest known one first) or a run of anything else up to white space or a special
//! symbol. `in` and `notin` are keywords only where an operator can stand, so they are also usable as keys and values.

use super::SelectorError;
use super::labels::{LabelSelector, Operator, Requirement, check_key};
use crate::field::{FieldErrors, FieldPath, aggregate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    GreaterThan,
    Identifier,
    In,
    LessThan,
    NotEquals,
    NotIn,
    Open,
}

/// Whether keywords are operators or plain words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    KeyAndOperator,
    Values,
}

struct Parser {
    items: Vec<(Token, String)>,
    position: usize,
}

impl LabelSelector {
    /// Parses the string form of `?labelSelector=`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse(text)
    }
}

/// Parses a whole selector.
fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
    let mut parser = Parser { items: scan(text), position: 0 };
    Ok(LabelSelector::from_requirements(parser.selector().map_err(SelectorError)?))
}

fn special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::GreaterThan,
        "<" => Token::LessThan,
        "!=" => Token::NotEquals,
        "(" => Token::Open,
        _ => return None,
    })
}

fn scan(text: &str) -> Vec<(Token, String)> {
    let mut items = Vec::new();
    let mut rest = text.trim_start_matches(space);
    while let Some(first) = rest.chars().next() {
        let (token, len) = if special(first) {
            // The longest known symbol is two characters.
            match rest.get(..2).and_then(symbol) {
                Some(token) => (token, 2),
                None => (symbol(&rest[..1]).unwrap_or(Token::Error), 1),
            }
        } else {
            let len = rest.find(|c| special(c) || space(c)).unwrap_or(rest.len());
            let token = match &rest[..len] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Identifier,
            };
            (token, len)
        };
        items.push((token, rest[..len].to_owned()));
        rest = rest[len..].trim_start_matches(space);
    }
    items.push((Token::End, String::new()));
    items
}

// === impl Parser ===

impl Parser {
    fn peek(&self, context: Context) -> (Token, String) {
        let (token, text) = self.items.get(self.position).cloned().unwrap_or((Token::End, String::new()));
        match token {
            Token::In | Token::NotIn if context == Context::Values => (Token::Identifier, text),
            _ => (token, text),
        }
    }

    fn next(&mut self, context: Context) -> (Token, String) {
        let item = self.peek(context);
        self.position += 1;
        item
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek(Context::Values) {
                (Token::Identifier | Token::Not, _) => {
                    requirements.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.next(Context::Values) {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => {
                            let (token, text) = self.peek(Context::Values);
                            if token != Token::Identifier && token != Token::Not {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        }
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let root = FieldPath::root();
        let (mut token, mut key) = self.next(Context::Values);
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next(Context::Values);
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let mut errors = FieldErrors::new();
        check_key(&key, &root, &mut errors);
        if let Some(text) = aggregate(&errors) {
            return Err(text);
        }
        let bare = matches!(self.peek(Context::Values).0, Token::End | Token::Comma);
        let (operator, values) = if negated {
            (Operator::DoesNotExist, Vec::new())
        } else if bare {
            (Operator::Exists, Vec::new())
        } else {
            let operator = self.operator()?;
            let values = match operator {
                Operator::In | Operator::NotIn => self.values()?,
                _ => vec![self.exact_value()?],
            };
            (operator, values)
        };
        Requirement::new(&key, operator, values, &root).map_err(|e| e.0)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.next(Context::KeyAndOperator) {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::GreaterThan, _) => Operator::GreaterThan,
            (Token::LessThan, _) => Operator::LessThan,
            (_, text) => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, text) = self.next(Context::Values);
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        match self.peek(Context::Values) {
            (Token::Identifier | Token::Comma, _) => {
                let values = self.identifiers()?;
                match self.next(Context::Values) {
                    (Token::Close, _) => Ok(values),
                    (_, text) => Err(format!("found '{text}', expected: ')'")),
                }
            }
            (Token::Close, _) => {
                self.position += 1;
                Ok(Vec::new())
            }
            (_, text) => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    /// A list in parentheses; missing items around commas are empty strings.
    fn identifiers(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.next(Context::Values) {
                (Token::Identifier, text) => {
                    values.push(text);
                    match self.peek(Context::Values) {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.peek(Context::Values).0 {
                        Token::Close => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.position += 1;
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(Context::Values).0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next(Context::Values) {
            (Token::Identifier, text) => Ok(text),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_documented() {
        let labels = json!({"app": "web", "tier": "1", "in": "x", "empty": ""});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier", true),
            (" app = web , tier in ( 1 , 2 ) ", true),
            ("app!=web", false),
            ("absent!=x", true),
            ("app notin (web)", false),
            ("absent notin (web)", true),
            ("!absent", true),
            ("!app", false),
            ("tier>0,tier<2", true),
            ("tier>1", false),
            ("app>1", false),
            ("in=x", true),
            ("in in (in,x)", true),
            ("empty=", true),
            ("empty=,app", true),
            ("empty in (,x)", true),
            ("app in (a,web)", true),
        ];
        for (text, want) in cases {
            let selector = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(labels.as_object()), want, "{text}");
            let again = parse(&selector.to_string()).expect("its own text parses");
            assert_eq!(again, selector, "{text}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        let cases = [
            ("app=web,", "found '', expected: identifier after ','"),
            (",app", "found ',', expected: !, identifier, or 'end of string'"),
            ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
            ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("app in ()", "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"),
            ("!!app", "unable to parse requirement: found '!', expected: identifier"),
            ("app=(", "unable to parse requirement: found '(', expected: identifier"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            (
                "app>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(want.to_owned()), "{text}");
        }
        let bad_key = parse("a@b=c").map_err(|e| e.to_string()).expect_err("bad key");
        assert!(bad_key.starts_with("unable to parse requirement: <nil>: Invalid value: \"a@b\": name part must consist"), "{bad_key}");
        let bad_value = parse("a=@").map_err(|e| e.to_string()).expect_err("bad value");
        assert!(bad_value.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"@\": a valid label"), "{bad_value}");
    }

    #[test]
    fn objects_match_as_documented() {
        let labels = json!({"app": "web"});
        let cases = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}), true),
            (json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["db"]}]}), true),
            (json!({"matchExpressions": [{"key": "x", "operator": "Exists"}]}), false),
        ];
        for (selector, want) in cases {
            let parsed = LabelSelector::from_object(&selector).expect("valid");
            assert_eq!(parsed.matches(labels.as_object()), want, "{selector}");
        }
        let error = LabelSelector::from_object(&json!({"matchExpressions": [{"key": "x", "operator": "Gt"}]}));
        assert_eq!(error.map_err(|e| e.to_string()), Err("\"Gt\" is not a valid label selector operator".to_owned()));
    }
}
