package mcast

// Verdict is what to do with a frame given to Receive. It never goes back to its
// ingress port.
type Verdict uint8

const (
	Data      Verdict = iota // not a message: forward it by the Table
	Flood                    // to all ports of the VLAN
	ToRouters                // to Result.Ports
	Drop                     // for Result.Reason
)

// Result is the outcome of Receive.
type Result struct {
	Verdict Verdict
	Ports   []uint16 // for ToRouters, sorted; the ingress port may be among them
	Reason  Reason
}

// Stats counts messages in and out, over all VLANs.
type Stats struct {
	Queries, Reports, Leaves uint64 // accepted; a report with several records counts once
	QueriesSent              uint64
	Dropped                  [numReasons]uint64 // by Reason; Accepted stays 0
}

// Receive takes a frame that arrived on a port, without its VLAN tag. The caller owns
// the bytes: memory shared with a guest must be copied first. The verdict follows RFC
// 4541 section 2.1.1: queries go to all hosts, reports only to routers, so that hosts
// do not suppress their own.
func (s *Snooper) Receive(vlan, port uint16, frame []byte) Result {
	v := s.vlans[vlan]
	if v == nil {
		return Result{Verdict: Flood}
	}
	if !IsControl(frame) {
		if IsQuery(frame) && s.config(port).Router == RouterNever {
			return s.drop(RouterGuard)
		}
		return Result{Verdict: Data}
	}
	m, reason := parse(frame)
	if reason != Accepted {
		return s.drop(reason)
	}
	in := v.inst[m.family]
	if (m.kind == query || m.kind == routerNotice || m.kind == routerMessage) && s.config(port).Router == RouterNever {
		return s.drop(RouterGuard)
	}
	switch m.kind {
	case routerNotice:
		in.routers.learn(port, v.cfg.RouterTimeout)
	case query:
		s.stats.Queries++
		if other := &in.querier.other; !m.group.IsValid() {
			in.hear(&m, port)
		} else if in.querier.heard() && m.src == other.addr && port == other.port {
			in.heed(&m)
		}
	case report, report3:
		s.stats.Reports++
		if !in.report(&m, port) {
			return s.drop(GroupLimit)
		}
		return in.toRouters()
	case leave:
		s.stats.Leaves++
		in.apply(port, record{typ: toIn, group: m.group, sources: addresses{family: m.family}}, m.version)
		return in.toRouters()
	}
	return Result{Verdict: Flood}
}

// report applies a report. It reads older versions as RFC 3376 section 7.3.2 says. It
// returns false if every record was refused.
func (in *instance) report(m *message, port uint16) bool {
	if m.kind == report {
		return in.apply(port, record{typ: isEx, group: m.group, sources: addresses{family: m.family}}, m.version)
	}
	refused := 0
	rest := m.records
	for range m.count {
		var r record
		r, rest, _ = nextRecord(m.family, rest)
		if !in.apply(port, r, m.version) {
			refused++
		}
	}
	return refused == 0 || refused < m.count
}

func (in *instance) toRouters() Result {
	if !in.querier.own && !in.querier.heard() {
		return Result{Verdict: Flood}
	}
	return Result{Verdict: ToRouters, Ports: in.routers.list()}
}

func (s *Snooper) drop(r Reason) Result {
	s.stats.Dropped[r]++
	return Result{Verdict: Drop, Reason: r}
}
