//! Parameters of kernels: one declaration for the host, from which the kernels' own are proven.

/// Declares a kernel's parameters: 32-bit fields in the order of the kernel's struct of the same name.
macro_rules! params {
    ($(#[$doc:meta])* pub struct $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the kernels' contracts explain them")]
        pub struct $name { $(pub $field: $kind),* }

        impl $name {
            /// Kind and name of each field.
            pub const FIELDS: &[(&str, &str)] = &[$((stringify!($kind), stringify!($field))),*];

            /// As the kernel reads them.
            pub fn bytes(&self) -> [u8; size_of::<Self>()] {
                let mut bytes = [0; size_of::<Self>()];
                let fields = [$(self.$field.to_ne_bytes()),*];
                bytes.copy_from_slice(fields.as_flattened());
                bytes
            }
        }
    };
}
