//! The conversions that all validated texts have in common.

/// Implements parsing, formatting, comparison and serialization of a type with `new` and `as_str`.
///
/// `$expected` is what an error of deserialization says about a value that is not a string.
macro_rules! impl_text_value {
    ($type:ident, $expected:literal) => {
        impl std::str::FromStr for $type {
            type Err = $crate::error::ConfigError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        $crate::oauth::text_value::impl_text_value!(@try_from $type: &str, String, &String);
        $crate::oauth::text_value::impl_text_value!(@compare $type: str, &str, String);

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_owned()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextVisitor;

                impl serde::de::Visitor<'_> for TextVisitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        <$type>::new(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(TextVisitor)
            }
        }
    };
    (@try_from $type:ident: $($text:ty),+) => {
        $(impl TryFrom<$text> for $type {
            type Error = $crate::error::ConfigError;

            fn try_from(text: $text) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        })+
    };
    (@compare $type:ident: $($text:ty),+) => {
        $(impl PartialEq<$text> for $type {
            fn eq(&self, other: &$text) -> bool {
                let other: &str = other.as_ref();
                self.as_str() == other
            }
        }

        impl PartialEq<$type> for $text {
            fn eq(&self, other: &$type) -> bool {
                other == self
            }
        })+
    };
}

pub(super) use impl_text_value;
