//! Kernel parameters: one declaration for the host; tests check the kernels' own declarations against it.

/// Declares a kernel's parameters: 32-bit fields in the order of the kernel's struct of the same name.
macro_rules! params {
    ($(#[$doc:meta])* pub struct $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the kernels' contracts document them")]
        pub struct $name { $(pub $field: $kind),* }

        impl $name {
            /// Kind and name of each field.
            pub const FIELDS: &[(&str, &str)] = &[$((stringify!($kind), stringify!($field))),*];

            /// The bytes that the kernel reads.
            pub fn bytes(&self) -> [u8; size_of::<Self>()] {
                let mut bytes = [0; size_of::<Self>()];
                let fields = [$(self.$field.to_ne_bytes()),*];
                bytes.copy_from_slice(fields.as_flattened());
                bytes
            }
        }
    };
}
