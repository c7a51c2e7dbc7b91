//! PKCS#7 certs-only: certificates and nothing else, as EST hands them out (RFC 7030 4.1.3; RFC 5652 5.1). Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use yasna::{Tag, construct_der, models::ObjectIdentifier};

/// A SignedData without content and signers that holds these certificates, each in DER.
pub fn certs_only<C: AsRef<[u8]>>(certificates: &[C]) -> Vec<u8> {
    let signed_data = ObjectIdentifier::from_slice(&[1, 2, 840, 113_549, 1, 7, 2]);
    let data = ObjectIdentifier::from_slice(&[1, 2, 840, 113_549, 1, 7, 1]);
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&signed_data);
            writer.next().write_tagged(Tag::context(0), |writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_u8(1);
                    writer.next().write_set(|_| ());
                    writer.next().write_sequence(|writer| writer.next().write_oid(&data));
                    writer.next().write_tagged_implicit(Tag::context(0), |writer| {
                        writer.write_set_of(|writer| {
                            for certificate in certificates {
                                writer.next().write_der(certificate.as_ref());
                            }
                        });
                    });
                    writer.next().write_set(|_| ());
                });
            });
        });
    })
}

/// Base64 in lines of 64, which `openssl base64 -d` wants.
pub fn base64_lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut lines = String::with_capacity(text.len() + text.len() / 64 + 1);
    for (index, letter) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            lines.push('\n');
        }
        lines.push(letter);
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degenerate_message_has_its_certificates_in_place() {
        // Two tiny "certificates": the encoding does not look inside.
        let der = certs_only(&[[0x30, 0x00], [0x05, 0x00]]);
        let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];
        let mut wanted = vec![0x30, 0x29];
        wanted.extend(oid);
        wanted.extend([0x02, 0xa0, 0x1c, 0x30, 0x1a, 0x02, 0x01, 0x01, 0x31, 0x00, 0x30, 0x0b]);
        wanted.extend(oid);
        wanted.extend([0x01, 0xa0, 0x04, 0x05, 0x00, 0x30, 0x00, 0x31, 0x00]);
        assert_eq!(hex::encode(der), hex::encode(wanted));
    }

    #[test]
    fn lines_end_where_openssl_wants_them() {
        assert_eq!(base64_lines(b"abc"), "YWJj\n");
        let text = base64_lines(&[0; 96]);
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [64, 64]);
    }
}
