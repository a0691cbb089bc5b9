package bgp

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	headerLen  = 19   // RFC 4271 section 4.1
	maxMessage = 4096 // extended messages (RFC 8654) are not offered
)

// notification is the error that ends a session with a NOTIFICATION.
type notification struct {
	code, subcode uint8
	why           string
}

func (n *notification) Error() string { return n.why }

// Errors with their codes of RFC 4271 section 4.5 and RFC 4486.
var (
	errSync       = &notification{1, 1, "the neighbor's messages are out of step"}
	errLength     = &notification{1, 2, "the neighbor sent a message of an impossible length"}
	errType       = &notification{1, 3, "the neighbor sent a message of an unknown type"}
	errAttributes = &notification{3, 1, "the neighbor sent malformed attributes"}
	errRoutes     = &notification{3, 10, "the neighbor sent malformed routes"}
	errHold       = &notification{4, 0, "the neighbor was silent for longer than the hold time"}
	errOpen       = &notification{2, 0, "the neighbor's OPEN is malformed"}
	errUntaken    = &notification{8, 0, "the neighbor takes no messages"} // RFC 9687
	errState      = &notification{5, 0, "the neighbor sent a message at the wrong time"}

	ceaseDeconfigured = &notification{6, 3, "the neighbor was removed"}
	ceaseRejected     = &notification{6, 5, "there is a session with the neighbor already"}
	ceaseCollision    = &notification{6, 7, "another connection with the neighbor came first"}
	ceaseDead         = &notification{6, 10, "the neighbor is silent, as BFD says"} // RFC 9384
	ceaseResources    = &notification{6, 8, "the neighbor takes routes too slowly"}
)

// received is the error of a NOTIFICATION from the neighbour.
type received struct{ code, subcode uint8 }

// unworded are codes for which GoBGP's codec has no words.
var unworded = map[received]string{
	{4, 0}:  "this switch was silent for longer than the hold time",
	{6, 9}:  "hard reset", // RFC 8538
	{6, 10}: "this switch is silent, as BFD says",
	{8, 0}:  "this switch took no messages",
}

func (r received) Error() string {
	if text := unworded[r]; text != "" {
		return fmt.Sprintf("the neighbor ended the session: code %d subcode %d (%s)", r.code, r.subcode, text)
	}
	return "the neighbor ended the session: " + packet.NewNotificationErrorCode(r.code, r.subcode).String()
}

// readMessage reads a message into buf, which has room for maxMessage bytes. The body is valid
// until the next call.
func readMessage(r io.Reader, buf []byte) (kind byte, body []byte, err error) {
	head := buf[:headerLen]
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	for _, b := range head[:16] {
		if b != 0xff {
			return 0, nil, errSync
		}
	}
	n := int(binary.BigEndian.Uint16(head[16:]))
	if n < headerLen || n > maxMessage {
		return 0, nil, errLength
	}
	if _, err := io.ReadFull(r, buf[headerLen:n]); err != nil {
		return 0, nil, err
	}
	return head[18], buf[headerLen:n], nil
}

// hasMessage reports whether a whole message has come already: readMessage will not wait.
func hasMessage(in *bufio.Reader) bool {
	if in.Buffered() < headerLen {
		return false
	}
	head, _ := in.Peek(headerLen)
	return in.Buffered() >= int(binary.BigEndian.Uint16(head[16:]))
}

// opened is what the OPEN of a neighbour says.
type opened struct {
	routerID netip.Addr
	hold     time.Duration // 0: no keepalives
	as4      bool
	refresh  bool          // it understands ROUTE-REFRESH
	restart  time.Duration // how long to keep its routes; 0: not at all
	keeps    bool          // it has kept forwarding while it restarted
}

// restartTime is how long neighbours keep the routes of a switch whose connection is lost: a
// daemon restarts within seconds.
const restartTime = 60 * time.Second

// maxRestart bounds how long the routes of a neighbour are kept.
const maxRestart = 300 * time.Second

// openMessage returns the OPEN to a neighbour.
func (n *neighbor) openMessage() (*packet.BGPMessage, error) {
	cfg := &n.speaker.cfg
	as := uint16(asTrans)
	if cfg.AS <= 0xffff {
		as = uint16(cfg.AS)
	}
	restarting := time.Now().Before(n.speaker.ready)
	capabilities := []packet.ParameterCapabilityInterface{
		packet.NewCapMultiProtocol(packet.RF_EVPN),
		packet.NewCapRouteRefresh(),
		packet.NewCapFourOctetASNumber(cfg.AS),
		packet.NewCapGracefulRestart(restarting, false, uint16(restartTime/time.Second),
			[]*packet.CapGracefulRestartTuple{packet.NewCapGracefulRestartTuple(packet.RF_EVPN, true)}),
	}
	return packet.NewBGPOpenMessage(as, uint16(n.Hold/time.Second), cfg.RouterID,
		[]packet.OptionParameterInterface{packet.NewOptionParameterCapability(capabilities)})
}

// Of an OPEN: optional parameters (IANA, BGP OPEN Optional Parameter Types) and capabilities (IANA, Capability Codes).
const (
	openLen = 10 // with the length of its parameters (RFC 4271 section 4.2)

	parameterCapabilities = 2   // RFC 5492
	parameterExtended     = 255 // all lengths of parameters have two octets (RFC 9072)

	capMultiprotocol = 1  // RFC 4760 section 8
	capRefresh       = 2  // RFC 2918
	capRestart       = 64 // RFC 4724 section 3
	capAS4           = 65 // RFC 6793

	restartForwarding = 0x80 // the flag of a family
)

// readOpen reads and checks the OPEN of a neighbour (RFC 4271 section 6.2). Capabilities that are not known here, or have
// another length than they should, do not count.
func (n *neighbor) readOpen(b []byte) (o opened, err error) {
	if len(b) < openLen {
		return o, errLength
	}
	if b[0] != 4 {
		return o, &notification{2, 1, fmt.Sprintf("the neighbor speaks BGP version %d", b[0])}
	}
	as, hold := uint32(binary.BigEndian.Uint16(b[1:])), time.Duration(binary.BigEndian.Uint16(b[3:]))*time.Second
	o.routerID = netip.AddrFrom4([4]byte(b[5:]))
	o.hold = min(hold, n.Hold)
	evpn := false
	if err := capabilities(b[openLen-1:], func(code byte, v []byte) {
		switch {
		case code == capMultiprotocol && len(v) == 4:
			evpn = evpn || isEVPN([]byte{v[0], v[1], v[3]})
		case code == capRefresh:
			o.refresh = true
		case code == capAS4 && len(v) == 4:
			as, o.as4 = binary.BigEndian.Uint32(v), true
		case code == capRestart && len(v) >= 2:
			seconds := binary.BigEndian.Uint16(v) & 0xfff
			for v = v[2:]; len(v) >= 4; v = v[4:] {
				if isEVPN(v) {
					o.restart = min(time.Duration(seconds)*time.Second, maxRestart)
					o.keeps = v[3]&restartForwarding != 0
				}
			}
		}
	}); err != nil {
		return o, err
	}
	switch {
	case !evpn: // nor, perhaps, does it say its AS
		return o, &notification{2, 7, "the neighbor does not offer EVPN; activate l2vpn evpn for this switch there"}
	case as != n.AS:
		return o, &notification{2, 2, fmt.Sprintf("the neighbor is in AS %d, not %d; correct --as", as, n.AS)}
	case o.routerID.IsUnspecified(), as == n.speaker.cfg.AS && o.routerID == n.speaker.cfg.RouterID:
		return o, &notification{2, 3, fmt.Sprintf("the neighbor has the router ID %v; it must be unique", o.routerID)}
	case hold == time.Second || hold == 2*time.Second:
		return o, &notification{2, 6, "the neighbor's hold time is shorter than 3 s"}
	}
	return o, nil
}

// capabilities calls f for each capability in the optional parameters of an OPEN. b begins with their length.
func capabilities(b []byte, f func(code byte, value []byte)) error {
	size, length := 1, int(b[0])
	if b = b[1:]; length > 0 && len(b) >= 3 && b[0] == parameterExtended {
		size, length, b = 2, int(binary.BigEndian.Uint16(b[1:])), b[3:]
	}
	if len(b) < length {
		return errOpen
	}
	for b = b[:length]; len(b) > 0; {
		kind, value, rest, ok := nextParameter(b, size)
		switch {
		case !ok:
			return errOpen
		case kind != parameterCapabilities:
			return &notification{2, 4, fmt.Sprintf("the neighbor's OPEN has a parameter of the unknown type %d", kind)}
		}
		for b = rest; len(value) > 0; {
			code, v, more, ok := nextParameter(value, 1)
			if !ok {
				return errOpen
			}
			f(code, v)
			value = more
		}
	}
	return nil
}

// nextParameter returns the first of some parameters or capabilities, whose lengths have 1 or 2 octets.
func nextParameter(b []byte, size int) (kind byte, value, rest []byte, ok bool) {
	head := 1 + size
	if len(b) < head {
		return 0, nil, nil, false
	}
	n := head + int(b[1])
	if size == 2 {
		n = head + int(binary.BigEndian.Uint16(b[1:]))
	}
	if len(b) < n {
		return 0, nil, nil, false
	}
	return b[0], b[head:n], b[n:], true
}
