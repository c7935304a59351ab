//! A cursor over JSON that a serializer made. It trusts nothing: what is no JSON is an error, and no depth of nesting is recursion.

use std::borrow::Cow;

/// What is at the cursor is not what JSON has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoJson;

/// A place in a text.
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The first byte of the next token.
    pub(super) fn peek(&mut self) -> Result<u8, NoJson> {
        while let Some(byte) = self.text.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(NoJson)
    }

    /// Steps over one character of punctuation.
    pub(super) fn expect(&mut self, wanted: u8) -> Result<(), NoJson> {
        if self.peek()? != wanted {
            return Err(NoJson);
        }
        self.at += 1;
        Ok(())
    }

    /// Steps behind the brace or bracket that opens; `true` when something is inside.
    pub(super) fn open(&mut self, opening: u8) -> Result<bool, NoJson> {
        self.expect(opening)?;
        let closing = opening + 2;
        if self.peek()? == closing {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Steps over the comma or the closing brace or bracket behind a member; `true` when another follows.
    pub(super) fn more(&mut self, closing: u8) -> Result<bool, NoJson> {
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Ok(true),
            next if next == closing => Ok(false),
            _ => Err(NoJson),
        }
    }

    /// A member's name, and the colon behind it.
    pub(super) fn key(&mut self) -> Result<Cow<'a, [u8]>, NoJson> {
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// `null`, if it is there.
    pub(super) fn null(&mut self) -> Result<bool, NoJson> {
        if self.peek()? != b'n' {
            return Ok(false);
        }
        self.literal().map(|word| word == b"null")
    }

    /// A word without quotes: a number, `true`, `false` or `null`.
    pub(super) fn literal(&mut self) -> Result<&'a [u8], NoJson> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b',' | b'}' | b']' | b':' | b'"') || byte.is_ascii_whitespace())
            .unwrap_or(rest.len());
        if length == 0 {
            return Err(NoJson);
        }
        self.at += length;
        Ok(&rest[..length])
    }

    /// A string without its quotes and escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, NoJson> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let stop = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(NoJson)?;
        if rest[stop] == b'"' {
            self.at += stop + 1;
            return Ok(Cow::Borrowed(&rest[..stop]));
        }
        // Escapes are rare: serde_json knows them all.
        let start = self.at - 1;
        self.skip_string()?;
        let text: String = serde_json::from_slice(&self.text[start..self.at]).map_err(|_| NoJson)?;
        Ok(Cow::Owned(text.into_bytes()))
    }

    /// The text of a whole value.
    pub(super) fn value(&mut self) -> Result<&'a [u8], NoJson> {
        self.peek()?;
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1).ok_or(NoJson)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                b'"' => {
                    self.at += 1;
                    self.skip_string()?;
                }
                _ => drop(self.literal()?),
            }
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }

    /// From behind the opening quote to behind the closing one.
    fn skip_string(&mut self) -> Result<(), NoJson> {
        loop {
            let rest = self.text.get(self.at..).ok_or(NoJson)?;
            let stop = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(NoJson)?;
            if rest[stop] == b'"' {
                self.at += stop + 1;
                return Ok(());
            }
            self.at += stop + 2;
        }
    }
}
