package bgp

import (
	"bufio"
	"encoding/binary"
	"errors"
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
	errState      = &notification{5, 0, "the neighbor sent a message at the wrong time"}

	ceaseDeconfigured = &notification{6, 3, "the neighbor was removed"}
	ceaseRejected     = &notification{6, 5, "there is a session with the neighbor already"}
	ceaseCollision    = &notification{6, 7, "another connection with the neighbor came first"}
	ceaseDead         = &notification{6, 10, "the neighbor is silent, as BFD says"} // RFC 9384
	ceaseResources    = &notification{6, 8, "the neighbor takes routes too slowly"}
)

// received is the error of a NOTIFICATION from the neighbour.
type received struct{ code, subcode uint8 }

func (r received) Error() string {
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

// readOpen reads and checks the OPEN of a neighbour (RFC 4271 section 6.2).
func (n *neighbor) readOpen(body []byte) (o opened, err error) {
	var m packet.BGPOpen
	if err := m.DecodeFromBytes(body); err != nil {
		var e *packet.MessageError
		if errors.As(err, &e) {
			return o, &notification{e.TypeCode, e.SubTypeCode, "the neighbor's OPEN is malformed: " + e.Error()}
		}
		return o, errLength
	}
	as, evpn := uint32(m.MyAS), false
	for _, p := range m.OptParams {
		c, ok := p.(*packet.OptionParameterCapability)
		if !ok {
			return o, &notification{2, 4, "the neighbor's OPEN has an unknown parameter"}
		}
		for _, c := range c.Capability {
			switch c := c.(type) {
			case *packet.CapMultiProtocol:
				evpn = evpn || c.CapValue == packet.RF_EVPN
			case *packet.CapFourOctetASNumber:
				as, o.as4 = c.CapValue, true
			case *packet.CapRouteRefresh:
				o.refresh = true
			case *packet.CapGracefulRestart:
				for _, t := range c.Tuples {
					if packet.NewFamily(t.AFI, t.SAFI) == packet.RF_EVPN {
						o.restart = min(time.Duration(c.Time)*time.Second, maxRestart)
						o.keeps = t.Flags&0x80 != 0
					}
				}
			}
		}
	}
	o.routerID = m.ID
	o.hold = min(time.Duration(m.HoldTime)*time.Second, n.Hold)
	switch {
	case m.Version != 4:
		return o, &notification{2, 1, fmt.Sprintf("the neighbor speaks BGP version %d", m.Version)}
	case as != n.AS:
		return o, &notification{2, 2, fmt.Sprintf("the neighbor is in AS %d, not %d; correct --as", as, n.AS)}
	case !m.ID.Is4() || m.ID.IsUnspecified(), as == n.speaker.cfg.AS && m.ID == n.speaker.cfg.RouterID:
		return o, &notification{2, 3, fmt.Sprintf("the neighbor has the router ID %v; it must be unique", m.ID)}
	case m.HoldTime == 1 || m.HoldTime == 2:
		return o, &notification{2, 6, "the neighbor's hold time is shorter than 3 s"}
	case !evpn:
		return o, &notification{2, 7, "the neighbor does not offer EVPN; activate l2vpn evpn for this switch there"}
	}
	return o, nil
}
