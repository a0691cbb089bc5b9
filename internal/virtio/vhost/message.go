package vhost

import (
	"encoding/binary"
	"fmt"
)

// Request says what a message asks for.
type Request uint32

// The front end's requests.
const (
	GetFeatures         Request = 1
	SetFeatures         Request = 2
	SetOwner            Request = 3
	ResetOwner          Request = 4
	SetMemTable         Request = 5
	SetLogBase          Request = 6
	SetLogFD            Request = 7
	SetVringNum         Request = 8
	SetVringAddr        Request = 9
	SetVringBase        Request = 10
	GetVringBase        Request = 11
	SetVringKick        Request = 12
	SetVringCall        Request = 13
	SetVringErr         Request = 14
	GetProtocolFeatures Request = 15
	SetProtocolFeatures Request = 16
	GetQueueNum         Request = 17
	SetVringEnable      Request = 18
	SendRARP            Request = 19
	NetSetMTU           Request = 20
	SetBackendReqFD     Request = 21
	GetInflightFD       Request = 31
	SetInflightFD       Request = 32
	ResetDevice         Request = 34
	GetMaxMemSlots      Request = 36
	AddMemReg           Request = 37
	RemMemReg           Request = 38
	SetStatus           Request = 39
	GetStatus           Request = 40
)

var requestNames = map[Request]string{
	GetFeatures: "GET_FEATURES", SetFeatures: "SET_FEATURES", SetOwner: "SET_OWNER", ResetOwner: "RESET_OWNER",
	SetMemTable: "SET_MEM_TABLE", SetLogBase: "SET_LOG_BASE", SetLogFD: "SET_LOG_FD", SetVringNum: "SET_VRING_NUM",
	SetVringAddr: "SET_VRING_ADDR", SetVringBase: "SET_VRING_BASE", GetVringBase: "GET_VRING_BASE",
	SetVringKick: "SET_VRING_KICK", SetVringCall: "SET_VRING_CALL", SetVringErr: "SET_VRING_ERR",
	GetProtocolFeatures: "GET_PROTOCOL_FEATURES", SetProtocolFeatures: "SET_PROTOCOL_FEATURES",
	GetQueueNum: "GET_QUEUE_NUM", SetVringEnable: "SET_VRING_ENABLE", SendRARP: "SEND_RARP", NetSetMTU: "NET_SET_MTU",
	SetBackendReqFD: "SET_BACKEND_REQ_FD", GetInflightFD: "GET_INFLIGHT_FD", SetInflightFD: "SET_INFLIGHT_FD", ResetDevice: "RESET_DEVICE", GetMaxMemSlots: "GET_MAX_MEM_SLOTS",
	AddMemReg: "ADD_MEM_REG", RemMemReg: "REM_MEM_REG", SetStatus: "SET_STATUS", GetStatus: "GET_STATUS",
}

func (r Request) String() string {
	if s := requestNames[r]; s != "" {
		return s
	}
	return fmt.Sprintf("request %d", uint32(r))
}

// HeaderSize is the length of a message's header: request, flags and payload size,
// each 32 bits in the host's byte order.
const HeaderSize = 12

// Bits of the header's flags.
const (
	flagVersion     = 0x3 // must be 1
	flagReply       = 0x4
	flagNeedReply   = 0x8
	protocolVersion = 1
)

// maxPayload is the longest payload of a known request: SET_MEM_TABLE with maxTable
// regions. Anything longer is garbage.
const maxPayload = 8 + maxTable*regionSize

// maxTable bounds the regions of SET_MEM_TABLE, and so the file descriptors of a
// message.
const maxTable = 8

// Header is a message's header.
type Header struct {
	Request Request
	Flags   uint32
	Size    uint32
}

// ParseHeader reads the header in the first HeaderSize bytes of b.
func ParseHeader(b []byte) (Header, error) {
	h := Header{
		Request: Request(binary.NativeEndian.Uint32(b)),
		Flags:   binary.NativeEndian.Uint32(b[4:]),
		Size:    binary.NativeEndian.Uint32(b[8:]),
	}
	switch {
	case h.Flags&flagVersion != protocolVersion:
		return h, fmt.Errorf("%v has version %d; this is no vhost-user front end", h.Request, h.Flags&flagVersion)
	case h.Flags&flagReply != 0:
		return h, fmt.Errorf("%v is a reply to nothing", h.Request)
	case h.Size > maxPayload:
		return h, fmt.Errorf("%v has a payload of %d bytes", h.Request, h.Size)
	}
	return h, nil
}

// appendReply appends a reply to the request in h.
func appendReply(b []byte, r Request, payload ...uint64) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(r))
	b = binary.NativeEndian.AppendUint32(b, protocolVersion|flagReply)
	b = binary.NativeEndian.AppendUint32(b, uint32(8*len(payload)))
	for _, v := range payload {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return b
}

// Region is a part of the guest's memory, as the front end describes it. Descriptors
// hold guest physical addresses, SET_VRING_ADDR those of the front end.
type Region struct {
	GPA    uint64 // guest physical address
	Size   uint64 // in bytes
	UVA    uint64 // address in the front end's process
	Offset uint64 // start in the file
}

const regionSize = 32

func parseRegion(b []byte) Region {
	return Region{
		GPA:    binary.NativeEndian.Uint64(b),
		Size:   binary.NativeEndian.Uint64(b[8:]),
		UVA:    binary.NativeEndian.Uint64(b[16:]),
		Offset: binary.NativeEndian.Uint64(b[24:]),
	}
}

// RingAddr is where a ring lies: addresses in the front end's process, except for
// LogAddr. For a packed ring, Avail and Used are the event suppression areas of the
// driver and of the device.
type RingAddr struct {
	Log               bool // log writes to the used ring
	Desc, Used, Avail uint64
	LogAddr           uint64 // of the used ring, guest physical
}

func parseRingAddr(b []byte) (index uint32, a RingAddr) {
	return binary.NativeEndian.Uint32(b), RingAddr{
		Log:     binary.NativeEndian.Uint32(b[4:])&1 != 0,
		Desc:    binary.NativeEndian.Uint64(b[8:]),
		Used:    binary.NativeEndian.Uint64(b[16:]),
		Avail:   binary.NativeEndian.Uint64(b[24:]),
		LogAddr: binary.NativeEndian.Uint64(b[32:]),
	}
}
