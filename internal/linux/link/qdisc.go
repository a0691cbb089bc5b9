package link

import (
	"errors"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Places of queueing disciplines (include/uapi/linux/pkt_sched.h).
const (
	qdiscRoot    = 0xffffffff // TC_H_ROOT
	qdiscIngress = 0xfffffff1 // TC_H_INGRESS, which is where clsact has its egress, too
)

// FollowQueue calls f with whether somebody has put a queueing discipline, or a hook for
// egress filters (clsact), on an interface: sent frames must then go through it. A
// discipline that the kernel made by itself does not count; it has no handle. f is called
// before FollowQueue returns, and whenever that may have changed, as FollowIPv6 does.
func FollowQueue(index int, f func(queued bool)) (stop func(), err error) {
	var mu sync.Mutex
	var q queue
	stop, err = follow(unix.RTNLGRP_TC, index, func(m *syscall.NetlinkMessage) {
		mu.Lock()
		defer mu.Unlock()
		if m == nil {
			_ = q.read(index)
		} else {
			q.take(m.Header.Type, m.Data)
		}
		f(q.root || q.egress)
	})
	if err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	if err := q.read(index); err != nil {
		mu.Unlock()
		stop()
		mu.Lock()
		return nil, err
	}
	f(q.root || q.egress)
	return stop, nil
}

// queue records which disciplines somebody has put on an interface.
type queue struct{ root, egress bool }

// read asks the kernel, which also sends the answer to all listeners: so take must not call
// read.
func (q *queue) read(index int) error {
	*q = queue{}
	for _, place := range []uint32{qdiscRoot, qdiscIngress} {
		msgs, err := qdiscsAt(index, place)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			q.take(unix.RTM_NEWQDISC, m)
		}
	}
	return nil
}

// qdiscsAt asks the kernel for the discipline at a place of an interface; it gives none if there is none.
func qdiscsAt(index int, place uint32) ([][]byte, error) {
	// With an acknowledgement, since the kernel sends no answer about noqueue.
	req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_ACK|unix.NLM_F_ECHO)
	req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: place})
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, notFound("the interface is gone")
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil, nil
	}
	return msgs, err
}

// take updates q from a message about queueing disciplines.
func (q *queue) take(typ uint16, m []byte) {
	if typ != unix.RTM_NEWQDISC && typ != unix.RTM_DELQDISC || len(m) < nl.SizeofTcMsg {
		return
	}
	kind := ""
	for typ, value := range attributes(m[nl.SizeofTcMsg:]) {
		if typ == nl.TCA_KIND {
			kind = unix.ByteSliceToString(value)
		}
	}
	there := typ == unix.RTM_NEWQDISC
	switch t := nl.DeserializeTcMsg(m); t.Parent {
	case qdiscRoot:
		q.root = there && t.Handle != 0 && kind != "noqueue"
	case qdiscIngress:
		q.egress = there && kind == "clsact"
	}
}
