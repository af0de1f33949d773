//! Expressions: a JSON Pointer with `*` for "each", and `==`, `!=`, `in` or `exists`. Nothing else.
//!
//! ```text
//! expression = pointer space test
//! pointer    = *( "/" segment )            ; ~0 is ~, ~1 is /, * alone is each element of a list
//! test       = "==" literal / "!=" literal / "in" "[" literal *( "," literal ) "]" / "exists"
//! literal    = "true" / "false" / "null" / number / 'text' / word
//! ```

use serde_json::Value;

use crate::limits::EXPRESSION_BYTES_MAX;

/// What is wrong with an expression or a pipe, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub at: usize,
    pub message: String,
}

impl SyntaxError {
    pub fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Each,
}

/// A JSON Pointer in which a segment `*` stands for each element of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<Step>);

impl Pointer {
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(SyntaxError::new(0, format!("has more than {EXPRESSION_BYTES_MAX} bytes")));
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Some(rest) = text.strip_prefix('/') else { return Err(SyntaxError::new(0, "a pointer begins with a slash")) };
        let (mut steps, mut at) = (Vec::new(), 1);
        for segment in rest.split('/') {
            if let Some(bad) = segment.find(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(SyntaxError::new(at + bad, "a pointer has no white space"));
            }
            for (tilde, _) in segment.match_indices('~') {
                if !segment[tilde + 1..].starts_with(['0', '1']) {
                    return Err(SyntaxError::new(at + tilde, "~ is written ~0, and a slash in a name ~1"));
                }
            }
            steps.push(if segment == "*" { Step::Each } else { Step::Key(segment.replace("~1", "/").replace("~0", "~")) });
            at += segment.len() + 1;
        }
        Ok(Self(steps))
    }

    /// The values it points at. `None` where a member is missing, so that what is missing is never passed over.
    pub fn resolve<'v>(&self, root: &'v Value) -> Vec<Option<&'v Value>> {
        let mut found = vec![Some(root)];
        for step in &self.0 {
            found = match step {
                Step::Key(key) => found.into_iter().map(|value| value.and_then(|value| child(value, key))).collect(),
                Step::Each => found
                    .into_iter()
                    .flat_map(|value| match value {
                        Some(Value::Array(items)) => items.iter().map(Some).collect(),
                        _ => vec![None],
                    })
                    .collect(),
            };
        }
        found
    }

    /// The one value of a pointer without `*`, or the first.
    pub fn first<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.resolve(root).into_iter().next().flatten()
    }

    /// Whether it has a `*`.
    pub fn is_many(&self) -> bool {
        self.0.contains(&Step::Each)
    }

    /// What is before the first `*`, and what is after it.
    pub fn split(&self) -> Option<(Self, Self)> {
        let at = self.0.iter().position(|step| *step == Step::Each)?;
        Some((Self(self.0[..at].to_vec()), Self(self.0[at + 1..].to_vec())))
    }
}

fn child<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(key),
        // As in RFC 6901, an index has no leading zeros and no sign.
        Value::Array(items) if key == "0" || !key.starts_with(['0', '+']) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Is(Value),
    Not(Value),
    In(Vec<Value>),
}

/// A pointer and what must hold of the values there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expression {
    pub pointer: Pointer,
    test: Test,
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(SyntaxError::new(0, format!("has more than {EXPRESSION_BYTES_MAX} bytes")));
        }
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let pointer = Pointer::parse(&text[..end])?;
        let mut reader = Reader { text, at: end };
        reader.space();
        let condition = if reader.take("==") {
            Test::Is(reader.literal()?)
        } else if reader.take("!=") {
            Test::Not(reader.literal()?)
        } else if reader.take("exists") {
            Test::Exists
        } else if reader.take("in") {
            reader.space();
            if !reader.take("[") {
                return Err(reader.error("a list such as [a, 'b c', 3] follows `in`"));
            }
            let mut literals = vec![reader.literal()?];
            loop {
                reader.space();
                if reader.take("]") {
                    break Test::In(literals);
                }
                if !reader.take(",") {
                    return Err(reader.error("a comma or ] is missing"));
                }
                literals.push(reader.literal()?);
            }
        } else {
            return Err(reader.error("one of ==, !=, in, exists follows the pointer"));
        };
        reader.space();
        if reader.at < text.len() {
            return Err(reader.error("nothing can follow here; an expression has one pointer and one test"));
        }
        Ok(Self { pointer, test: condition })
    }

    /// Whether there is a value, and it holds for all of them.
    pub fn holds_for_all(&self, root: &Value) -> bool {
        let found = self.pointer.resolve(root);
        !found.is_empty() && found.into_iter().all(|value| self.holds(value))
    }

    /// Whether it holds for one of them at least.
    pub fn holds_for_any(&self, root: &Value) -> bool {
        self.pointer.resolve(root).into_iter().any(|value| self.holds(value))
    }

    /// Whether there is anything to hold for.
    pub fn finds(&self, root: &Value) -> bool {
        let found = self.pointer.resolve(root);
        !found.is_empty() && found.into_iter().all(|value| value.is_some())
    }

    /// The list it walks, and the expression about one of its rows.
    pub fn split(&self) -> Option<(Pointer, Self)> {
        let (list, pointer) = self.pointer.split()?;
        Some((list, Self { pointer, test: self.test.clone() }))
    }

    // What is missing proves nothing, so it never holds, not even for `!=`.
    fn holds(&self, value: Option<&Value>) -> bool {
        value.is_some_and(|value| match &self.test {
            Test::Exists => !value.is_null(),
            Test::Is(literal) => value == literal,
            Test::Not(literal) => value != literal,
            Test::In(literals) => literals.contains(value),
        })
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError::new(self.at, message)
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Goes on behind `word`, if it is next and does not go on itself.
    fn take(&mut self, word: &str) -> bool {
        let Some(rest) = self.text[self.at..].strip_prefix(word) else { return false };
        if word.ends_with(|c: char| c.is_alphabetic()) && rest.starts_with(is_word) {
            return false;
        }
        self.at += word.len();
        true
    }

    fn literal(&mut self) -> Result<Value, SyntaxError> {
        self.space();
        let rest = &self.text[self.at..];
        if let Some(quoted) = rest.strip_prefix('\'') {
            let Some(end) = quoted.find('\'') else { return Err(self.error("the quote is not closed")) };
            self.at += end + 2;
            return Ok(Value::from(&quoted[..end]));
        }
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        if word.is_empty() {
            return Err(self.error("true, false, null, a number, 'text' or a word of A-Z a-z 0-9 _ . - is missing"));
        }
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            // A version such as 1.2.3 is a word; 0012 would be two things at once.
            number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => match number.parse::<i64>() {
                Ok(whole) if whole.to_string() == number => Value::from(whole),
                _ => return Err(self.error("only whole numbers are compared; put a text into 'quotes'")),
            },
            word => Value::from(word),
        };
        self.at += word.len();
        Ok(value)
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_say_what_they_say_and_missing_members_prove_nothing() {
        let root = json!({"a": [{"s": "ok", "n": 1}, {"s": "bad"}], "flag": true, "none": null, "x/y": {"~": 5}, "empty": [], "t": "601"});
        for (text, all, any) in [
            ("/flag == true", true, true),
            ("/flag != true", false, false),
            ("/flag exists", true, true),
            ("/none exists", false, false),
            ("/none == null", true, true),
            ("/missing == null", false, false),
            ("/missing != true", false, false),
            ("/a/*/s == ok", false, true),
            ("/a/*/s in [ok, 'bad']", true, true),
            ("/a/*/n == 1", false, true),
            ("/a/*/n exists", false, true),
            ("/a/0/s == ok", true, true),
            ("/a/00/s == ok", false, false),
            ("/a/1/s in [ ok , bad ]", true, true),
            ("/empty/*/s == ok", false, false),
            ("/flag/* == true", false, false),
            ("/x~1y/~0 == 5", true, true),
            ("/t == 601", false, false),
            ("/t == '601'", true, true),
            ("  exists", true, true),
        ] {
            let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!((expression.holds_for_all(&root), expression.holds_for_any(&root)), (all, any), "{text}");
        }
    }

    #[test]
    fn a_wrong_expression_is_pointed_at() {
        for (text, at) in [
            ("flag == true", 0),
            ("/flag", 5),
            ("/flag = true", 6),
            ("/flag == ", 9),
            ("/flag == 'x", 9),
            ("/flag == true and /b == true", 14),
            ("/flag in a", 9),
            ("/flag in [a b]", 12),
            ("/flag in [a,", 12),
            ("/flag existsnot", 6),
            ("/a~2 exists", 2),
            ("/flag == 1.5", 9),
            ("/flag == 007", 9),
            ("/flag == \"x\"", 9),
            ("/flag =~ x", 6),
        ] {
            assert_eq!(Expression::parse(text).map_err(|error| error.at), Err(at), "{text}");
        }
        let longest = format!("/{} exists", "x".repeat(EXPRESSION_BYTES_MAX - 8));
        assert!(Expression::parse(&longest).is_ok());
        assert!(Expression::parse(&format!("{longest} ")).is_err());
        assert!(Pointer::parse(&format!("/{}", "x".repeat(EXPRESSION_BYTES_MAX - 1))).is_ok());
        assert!(Pointer::parse(&format!("/{}", "x".repeat(EXPRESSION_BYTES_MAX))).is_err());
    }
}
