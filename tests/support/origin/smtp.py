"""As much of a mail server as a client needs to find one: it greets first, and has a kind word for every command."""

from support.origin.listener import Connection, Listener


class SmtpOrigin(Listener):
    """Says 220 at once, 250 to everything, 221 to QUIT (RFC 5321)."""

    def serve(self, connection: Connection) -> None:
        connection.sock.sendall(b"220 mail.test ESMTP\r\n")
        pending = b""
        while data := connection.recv():
            *lines, pending = (pending + data).split(b"\r\n")
            for line in lines:
                if line.upper() == b"QUIT":
                    connection.sock.sendall(b"221 bye\r\n")
                    return
                connection.sock.sendall(b"250 fine\r\n")
