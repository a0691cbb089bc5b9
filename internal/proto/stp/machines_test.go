package stp

import "testing"

// Each table here is a state machine of clause 17: a row is one transition, named
// as in the machine's figure, from a port at rest in a state with set done to it.

// recorder keeps what a bridge asks for.
type recorder struct {
	states  map[uint16]State
	flushed []uint16
	sent    []BPDU
	by      []uint16 // the port of each sent
	events  []Event
}

func (r *recorder) SendBPDU(port uint16, frame []byte) {
	m, err := Parse(frame)
	if err != nil {
		panic(err)
	}
	r.sent, r.by = append(r.sent, m), append(r.by, port)
}

func (r *recorder) SetState(port uint16, s State) { r.states[port] = s }
func (r *recorder) Flush(port uint16)             { r.flushed = append(r.flushed, port) }
func (r *recorder) Event(e Event)                 { r.events = append(r.events, e) }

func testConfig() Config {
	return DefaultConfig([6]byte{0x52, 0x54, 0, 0, 0, 0x10})
}

// twoPorts is a bridge whose links are up and that has heard nothing.
func twoPorts(t *testing.T) (*Bridge, *recorder) {
	t.Helper()
	r := &recorder{states: map[uint16]State{}}
	b, err := New(testConfig(), r)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint16(2) {
		if err := b.AddPort(i+1, PortConfig{Priority: 0x80}); err != nil {
			t.Fatal(err)
		}
		b.SetLink(i+1, true)
	}
	return b, r
}

type transition struct {
	name  string
	set   func(p *port)
	stays bool // no transition
	want  func(p *port) bool
}

// check makes one step of a machine for every row. rest brings the port to the
// state that the rows start from.
func check(t *testing.T, machine func(*port) bool, rest func(p *port), rows []transition) {
	t.Helper()
	for _, row := range rows {
		b, _ := twoPorts(t)
		p := b.ports[0]
		rest(p)
		row.set(p)
		if moved := machine(p); moved == row.stays {
			t.Errorf("%s: moved: %v", row.name, moved)
		}
		if !row.want(p) {
			t.Errorf("%s: led to %+v", row.name, *p)
		}
	}
}

func none(*port) {}

func TestPortTimers17_22(t *testing.T) {
	b, _ := twoPorts(t)
	p := b.ports[0]
	p.timers = timers{edgeDelayWhile: 1, fdWhile: 2, helloWhen: 3, mdelayWhile: 4, rbWhile: 5, rcvdInfoWhile: 6, rrWhile: 7, txCount: 8}
	p.tick()
	if want := (timers{fdWhile: 1, helloWhen: 2, mdelayWhile: 3, rbWhile: 4, rcvdInfoWhile: 5, rrWhile: 6, txCount: 7}); p.timers != want {
		t.Errorf("%+v, want %+v", p.timers, want)
	}
}

func TestPortReceive17_23(t *testing.T) {
	discarded := func(p *port) bool {
		return p.receive == receiveDiscard && !p.rcvdBPDU && !p.rcvdMsg && !p.rcvdRSTP && !p.rcvdSTP && p.edgeDelayWhile == migrateTime
	}
	received := func(p *port) bool {
		return p.receive == receiveReceive && !p.rcvdBPDU && p.rcvdMsg && !p.operEdge && p.edgeDelayWhile == migrateTime
	}
	check(t, (*port).portReceive, func(p *port) { p.receive = receiveDiscard }, []transition{
		{"DISCARD to RECEIVE: RST", func(p *port) { p.rcvdBPDU, p.msg.Type, p.operEdge, p.edgeDelayWhile = true, TypeRST, true, 1 }, false,
			func(p *port) bool { return received(p) && p.rcvdRSTP && !p.rcvdSTP }},
		{"DISCARD to RECEIVE: Config", func(p *port) { p.rcvdBPDU, p.msg.Type = true, TypeConfig }, false,
			func(p *port) bool { return received(p) && p.rcvdSTP && !p.rcvdRSTP }},
		{"DISCARD to DISCARD: not enabled", func(p *port) { p.rcvdBPDU, p.rcvdSTP, p.link = true, true, false }, false, discarded},
		{"DISCARD to DISCARD: edge delay", func(p *port) { p.edgeDelayWhile, p.link = 1, false }, false, discarded},
		{"DISCARD", none, true, func(p *port) bool { return p.receive == receiveDiscard }},
	})
	check(t, (*port).portReceive, func(p *port) { p.receive = receiveReceive }, []transition{
		{"RECEIVE to RECEIVE", func(p *port) { p.rcvdBPDU, p.msg.Type = true, TypeTCN }, false,
			func(p *port) bool { return received(p) && p.rcvdSTP }},
		{"RECEIVE: the last message waits still", func(p *port) { p.rcvdBPDU, p.rcvdMsg = true, true }, true,
			func(p *port) bool { return p.rcvdBPDU }},
		{"RECEIVE to DISCARD", func(p *port) { p.rcvdBPDU, p.link = true, false }, false, discarded},
	})
}

func TestPortProtocolMigration17_24(t *testing.T) {
	checking := func(p *port) bool {
		return p.migration == migrationCheckingRSTP && p.sendRSTP && !p.mcheck && p.mdelayWhile == migrateTime
	}
	sensing := func(p *port) bool { return p.migration == migrationSensing && !p.rcvdRSTP && !p.rcvdSTP }
	check(t, (*port).protocolMigration, func(p *port) { p.migration = migrationCheckingRSTP }, []transition{
		{"CHECKING_RSTP", func(p *port) { p.rcvdSTP = true }, true, checking},
		{"CHECKING_RSTP to SENSING", func(p *port) { p.mdelayWhile, p.rcvdSTP = 0, true }, false, sensing},
		{"CHECKING_RSTP to itself", func(p *port) { p.mdelayWhile, p.link = 1, false }, false, checking},
	})
	check(t, (*port).protocolMigration, func(p *port) {
		p.migration, p.sendRSTP, p.mdelayWhile, p.rcvdSTP = migrationSelectingSTP, false, 2, true
	}, []transition{
		{"SELECTING_STP", none, true, func(p *port) bool { return !p.sendRSTP && p.migration == migrationSelectingSTP }},
		{"SELECTING_STP to SENSING: time", func(p *port) { p.mdelayWhile = 0 }, false, sensing},
		{"SELECTING_STP to SENSING: not enabled", func(p *port) { p.link = false }, false, sensing},
		{"SELECTING_STP to SENSING: mcheck", func(p *port) { p.mcheck = true }, false, func(p *port) bool { return sensing(p) && p.mcheck }},
	})
	check(t, (*port).protocolMigration, func(p *port) { p.migration, p.mdelayWhile = migrationSensing, 0 }, []transition{
		{"SENSING", func(p *port) { p.rcvdRSTP = true }, true, func(p *port) bool { return p.rcvdRSTP && p.sendRSTP }},
		{"SENSING to SELECTING_STP", func(p *port) { p.rcvdSTP = true }, false,
			func(p *port) bool {
				return p.migration == migrationSelectingSTP && !p.sendRSTP && p.mdelayWhile == migrateTime
			}},
		{"SENSING to CHECKING_RSTP: RSTP heard", func(p *port) { p.sendRSTP, p.rcvdRSTP = false, true }, false, checking},
		{"SENSING to CHECKING_RSTP: mcheck", func(p *port) { p.sendRSTP, p.mcheck = false, true }, false, checking},
		{"SENSING to CHECKING_RSTP: not enabled", func(p *port) { p.sendRSTP, p.link = false, false }, false, checking},
	})
}

func TestBridgeDetection17_25(t *testing.T) {
	edge := func(p *port) bool { return p.detection == detectionEdge && p.operEdge }
	notEdge := func(p *port) bool { return p.detection == detectionNotEdge && !p.operEdge }
	check(t, (*port).bridgeDetection, func(p *port) { p.detection, p.operEdge = detectionNotEdge, false }, []transition{
		{"NOT_EDGE to EDGE: admin", func(p *port) { p.cfg.AdminEdge, p.link = true, false }, false, edge},
		{"NOT_EDGE: admin, but the link is up", func(p *port) { p.cfg.AdminEdge = true }, true, notEdge},
		{"NOT_EDGE to EDGE: auto", func(p *port) { p.cfg.AutoEdge, p.edgeDelayWhile, p.proposing = true, 0, true }, false, edge},
		{"NOT_EDGE: auto is off", func(p *port) { p.edgeDelayWhile, p.proposing = 0, true }, true, notEdge},
		{"NOT_EDGE: too early", func(p *port) { p.cfg.AutoEdge, p.edgeDelayWhile, p.proposing = true, 1, true }, true, notEdge},
		{"NOT_EDGE: not proposing", func(p *port) { p.cfg.AutoEdge, p.edgeDelayWhile, p.proposing = true, 0, false }, true, notEdge},
		{"NOT_EDGE: speaks STP", func(p *port) {
			p.cfg.AutoEdge, p.edgeDelayWhile, p.proposing, p.sendRSTP = true, 0, true, false
		}, true, notEdge},
	})
	check(t, (*port).bridgeDetection, func(p *port) { p.detection, p.operEdge = detectionEdge, true }, []transition{
		{"EDGE", none, true, edge},
		{"EDGE to NOT_EDGE: a bridge was heard", func(p *port) { p.operEdge = false }, false, notEdge},
		{"EDGE to NOT_EDGE: not enabled", func(p *port) { p.link = false }, false, notEdge},
		{"EDGE: not enabled, but admin", func(p *port) { p.link, p.cfg.AdminEdge = false, true }, true, edge},
	})
}

func TestPortTransmit17_26(t *testing.T) {
	for _, row := range []struct {
		name string
		set  func(p *port)
		sent []BPDU // Type and Flags
		want func(p *port) bool
	}{
		{"TRANSMIT_INIT", func(p *port) { p.link, p.newInfo, p.txCount = false, true, 3 }, nil,
			func(p *port) bool { return !p.newInfo && p.txCount == 0 }},
		{"IDLE", func(p *port) { p.helloWhen = 1 }, nil, func(p *port) bool { return p.helloWhen == 1 }},
		{"not selected", func(p *port) { p.newInfo, p.selected = true, false }, nil, func(p *port) bool { return p.newInfo }},
		{"updtInfo", func(p *port) { p.newInfo, p.updtInfo = true, true }, nil, func(p *port) bool { return p.newInfo }},
		{"TRANSMIT_PERIODIC: designated", func(p *port) { p.helloWhen = 0 }, []BPDU{{Type: TypeRST, Flags: roleDesignated | FlagProposal}},
			func(p *port) bool { return p.helloWhen == 2 && p.txCount == 1 && !p.newInfo }},
		{"TRANSMIT_PERIODIC: root", func(p *port) { p.helloWhen, p.role = 0, RoleRoot }, nil, func(p *port) bool { return p.helloWhen == 2 }},
		{"TRANSMIT_PERIODIC: root, topology change", func(p *port) { p.helloWhen, p.role, p.tcWhile, p.proposing = 0, RoleRoot, 1, false },
			[]BPDU{{Type: TypeRST, Flags: roleRoot | FlagTC}}, func(p *port) bool { return p.helloWhen == 2 }},
		{"TRANSMIT_PERIODIC: alternate", func(p *port) { p.helloWhen, p.role = 0, RoleAlternate }, nil, func(p *port) bool { return p.helloWhen == 2 }},
		{"TRANSMIT_RSTP: all flags", func(p *port) {
			p.newInfo, p.role, p.agree, p.tcAck, p.tcWhile, p.state = true, RoleRoot, true, true, 1, Forwarding
		}, []BPDU{{Type: TypeRST, Flags: roleRoot | FlagProposal | FlagAgreement | FlagTC | FlagLearning | FlagForwarding}},
			func(p *port) bool { return !p.newInfo && !p.tcAck }},
		{"TRANSMIT_RSTP: alternate", func(p *port) { p.newInfo, p.role, p.proposing, p.agree = true, RoleAlternate, false, true },
			[]BPDU{{Type: TypeRST, Flags: roleAlternateBackup | FlagAgreement}}, func(p *port) bool { return !p.newInfo }},
		{"TRANSMIT_RSTP: TxHoldCount", func(p *port) { p.newInfo, p.txCount = true, 6 }, nil, func(p *port) bool { return p.newInfo }},
		{"TRANSMIT_CONFIG", func(p *port) { p.newInfo, p.sendRSTP, p.tcAck, p.tcWhile = true, false, true, 1 },
			[]BPDU{{Type: TypeConfig, Flags: FlagTC | FlagTCAck}}, func(p *port) bool { return !p.newInfo && !p.tcAck && p.txCount == 1 }},
		{"TRANSMIT_TCN", func(p *port) { p.newInfo, p.sendRSTP, p.role = true, false, RoleRoot },
			[]BPDU{{Type: TypeTCN}}, func(p *port) bool { return !p.newInfo && p.txCount == 1 }},
		{"STP has nothing to say on an alternate port", func(p *port) { p.newInfo, p.sendRSTP, p.role = true, false, RoleAlternate },
			nil, func(p *port) bool { return p.newInfo }},
		{"BPDU filter", func(p *port) { p.newInfo, p.cfg.BPDUFilter = true, true }, nil, func(p *port) bool { return p.tx == Counters{} }},
	} {
		b, r := twoPorts(t)
		p := b.ports[0]
		p.txCount, p.newInfo, r.sent, p.tx = 0, false, nil, Counters{}
		row.set(p)
		p.portTransmit()
		if len(r.sent) != len(row.sent) {
			t.Errorf("%s: sent %+v", row.name, r.sent)
			continue
		}
		for i, m := range row.sent {
			if r.sent[i].Type != m.Type || r.sent[i].Flags != m.Flags {
				t.Errorf("%s: sent %+v", row.name, r.sent[i])
			}
			if s := r.sent[i]; m.Type != TypeTCN && (s.MaxAge != 20*256 || s.HelloTime != 2*256 || s.ForwardDelay != 15*256) {
				t.Errorf("%s: sent the times %d, %d, %d", row.name, s.MaxAge, s.HelloTime, s.ForwardDelay)
			}
		}
		if !row.want(p) {
			t.Errorf("%s: led to %+v", row.name, *p)
		}
	}
}

// heard is a message from a better bridge on the other end of the link.
func heard(p *port, f Flags) {
	p.rcvdMsg = true
	p.msg = BPDU{Type: TypeRST, Flags: f, Root: 1, RootCost: 10, Bridge: 2, Port: 0x8001,
		MessageAge: 256, MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}
}

// holds makes the port hold what heard says, from an earlier message.
func holds(p *port) {
	heard(p, roleDesignated)
	p.portInformation()
	p.reselect, p.selected, p.updtInfo, p.rcvdInfoWhile = false, true, false, 3
}

func TestPortInformation17_27(t *testing.T) {
	better := vector{root: 1, cost: 10, bridge: 2, port: 0x8001}
	check(t, (*port).portInformation, func(p *port) { p.link = false; p.portInformation(); p.recompute() }, []transition{
		{"DISABLED to AGED", func(p *port) { p.link = true }, false,
			func(p *port) bool {
				return p.information == informationAged && p.infoIs == infoAged && p.reselect && !p.selected
			}},
		{"DISABLED to itself", func(p *port) { p.rcvdMsg = true }, false,
			func(p *port) bool { return p.information == informationDisabled && !p.rcvdMsg }},
		{"DISABLED", none, true, func(p *port) bool { return p.infoIs == infoDisabled }},
	})
	check(t, (*port).portInformation, func(p *port) { p.enterAged(); p.reselect, p.selected = false, true }, []transition{
		{"AGED to UPDATE", func(p *port) { p.updtInfo, p.agreed, p.synced, p.proposing, p.proposed = true, true, true, true, true }, false,
			func(p *port) bool {
				return p.information == informationCurrent && p.infoIs == infoMine && !p.agreed && !p.synced && !p.proposing && !p.proposed &&
					p.newInfo && !p.updtInfo && p.portPriority == p.designatedPriority && p.portTimes == p.designatedTimes
			}},
		{"AGED", none, true, func(p *port) bool { return p.infoIs == infoAged }},
	})
	check(t, (*port).portInformation, none, []transition{ // CURRENT, infoIs Mine
		{"any to DISABLED", func(p *port) { p.link, p.agree, p.agreed = false, true, true }, false,
			func(p *port) bool { return p.information == informationDisabled && !p.agree && !p.agreed && p.reselect }},
		{"CURRENT to UPDATE: no worse", func(p *port) {
			p.updtInfo, p.agreed, p.synced, p.designatedPriority.cost, p.portPriority.cost = true, true, true, 1, 2
		}, false, func(p *port) bool { return p.agreed && p.synced && p.portPriority.cost == 1 }},
		{"CURRENT to UPDATE: worse", func(p *port) { p.updtInfo, p.agreed, p.synced, p.designatedPriority.cost = true, true, true, 9 }, false,
			func(p *port) bool { return !p.agreed && !p.synced && p.portPriority.cost == 9 }},
		{"CURRENT to UPDATE: another root", func(p *port) { p.updtInfo, p.agreed, p.synced, p.designatedPriority.root = true, true, true, 1 }, false,
			func(p *port) bool { return !p.agreed && !p.synced }},
		{"RECEIVE to SUPERIOR_DESIGNATED", func(p *port) {
			heard(p, roleDesignated|FlagProposal|FlagTC)
			p.agreed, p.proposing, p.agree = true, true, true
		}, false, func(p *port) bool {
			return p.infoIs == infoReceived && p.portPriority == better && p.portTimes == times{1, 20, 2, 15} && p.rcvdInfoWhile == 6 &&
				p.proposed && p.rcvdTc && !p.agreed && !p.proposing && !p.agree && p.reselect && !p.selected && !p.rcvdMsg
		}},
		{"RECEIVE to SUPERIOR_DESIGNATED: Config", func(p *port) { heard(p, 0); p.msg.Type = TypeConfig }, false,
			func(p *port) bool { return p.infoIs == infoReceived && !p.proposed }},
		{"RECEIVE to SUPERIOR_DESIGNATED: went too far", func(p *port) { heard(p, roleDesignated); p.msg.MessageAge = 20 * 256 }, false,
			func(p *port) bool { return p.infoIs == infoReceived && p.rcvdInfoWhile == 0 }},
		{"RECEIVE to INFERIOR_DESIGNATED: dispute", func(p *port) {
			heard(p, roleDesignated|FlagLearning)
			p.msg.Root, p.agreed = ^BridgeID(0), true
		}, false, func(p *port) bool { return p.disputed && !p.agreed && !p.reselect && !p.rcvdMsg }},
		{"RECEIVE to INFERIOR_DESIGNATED: no dispute", func(p *port) { heard(p, roleDesignated); p.msg.Root, p.agreed = ^BridgeID(0), true }, false,
			func(p *port) bool { return !p.disputed && p.agreed }},
		{"RECEIVE to INFERIOR_DESIGNATED: Config", func(p *port) { heard(p, 0); p.msg.Type, p.msg.Root = TypeConfig, ^BridgeID(0) }, false,
			func(p *port) bool { return !p.disputed && p.infoIs == infoMine }},
		{"RECEIVE to NOT_DESIGNATED: agreement", func(p *port) {
			heard(p, roleRoot|FlagAgreement|FlagTC|FlagTCAck)
			p.msg.Root, p.msg.Bridge, p.proposing = p.portPriority.root, ^BridgeID(0), true
		}, false, func(p *port) bool { return p.agreed && !p.proposing && p.rcvdTc && p.rcvdTcAck && !p.rcvdMsg }},
		{"RECEIVE to NOT_DESIGNATED: agreement on another root", func(p *port) {
			heard(p, roleRoot|FlagAgreement)
			p.msg.Root, p.proposing = ^BridgeID(0), true
		}, false, func(p *port) bool { return !p.agreed && p.proposing }},
		{"RECEIVE to NOT_DESIGNATED: agreement on a shared link", func(p *port) {
			heard(p, roleAlternateBackup|FlagAgreement)
			p.msg.Root, p.msg.Bridge, p.cfg.Shared = p.portPriority.root, ^BridgeID(0), true
		}, false, func(p *port) bool { return !p.agreed }},
		{"RECEIVE to NOT_DESIGNATED: no agreement", func(p *port) { heard(p, roleRoot); p.msg.Root, p.agreed = ^BridgeID(0), true }, false,
			func(p *port) bool { return !p.agreed }},
		{"RECEIVE to OTHER: a root port that knows better", func(p *port) { heard(p, roleRoot|FlagAgreement) }, false,
			func(p *port) bool { return !p.agreed && p.infoIs == infoMine && !p.rcvdMsg }},
		{"RECEIVE to OTHER: TCN", func(p *port) { p.rcvdMsg, p.msg = true, BPDU{Type: TypeTCN} }, false,
			func(p *port) bool { return p.rcvdTcn && !p.rcvdMsg }},
		{"RECEIVE: itself", func(p *port) {
			heard(p, roleDesignated|FlagLearning)
			p.msg.Root, p.msg.Bridge, p.msg.Port = 0, p.b.id, p.id
		}, false, func(p *port) bool { return p.disputed && p.infoIs == infoMine && p.looped == 1 }},
		{"CURRENT: updtInfo, not selected", func(p *port) { p.updtInfo, p.selected, p.rcvdMsg = true, false, true }, true,
			func(p *port) bool { return p.rcvdMsg }},
	})
	check(t, (*port).portInformation, holds, []transition{ // CURRENT, infoIs Received
		{"RECEIVE to REPEATED_DESIGNATED", func(p *port) { heard(p, roleDesignated|FlagProposal|FlagTCAck) }, false,
			func(p *port) bool { return p.rcvdInfoWhile == 6 && p.proposed && p.rcvdTcAck && !p.reselect }},
		{"RECEIVE to SUPERIOR_DESIGNATED: other times", func(p *port) { heard(p, roleDesignated); p.msg.MaxAge, p.agree = 19*256, true }, false,
			func(p *port) bool { return p.reselect && p.portTimes.maxAge == 19 && p.agree }},
		{"RECEIVE to SUPERIOR_DESIGNATED: worse, from the same", func(p *port) { heard(p, roleDesignated); p.msg.RootCost, p.agree = 99, true }, false,
			func(p *port) bool { return p.reselect && p.portPriority.cost == 99 && !p.agree }},
		{"RECEIVE to INFERIOR_DESIGNATED", func(p *port) { heard(p, roleDesignated); p.msg.Bridge = 3 }, false,
			func(p *port) bool { return p.portPriority == better && p.rcvdInfoWhile == 3 }},
		{"CURRENT to AGED", func(p *port) { p.rcvdInfoWhile = 0 }, false,
			func(p *port) bool { return p.information == informationAged && p.infoIs == infoAged && p.reselect }},
		{"CURRENT: not aged while a message waits", func(p *port) { heard(p, roleDesignated); p.rcvdInfoWhile = 0 }, false,
			func(p *port) bool { return p.infoIs == infoReceived && p.rcvdInfoWhile == 6 }},
		{"CURRENT", none, true, func(p *port) bool { return p.infoIs == infoReceived }},
	})
}

func TestPortRoleSelection17_28(t *testing.T) {
	received := func(p *port, v vector) {
		p.infoIs, p.portPriority, p.portTimes = infoReceived, v, times{1, 21, 3, 16}
	}
	for _, row := range []struct {
		name        string
		set         func(p, q *port)
		role, other Role
		updt        bool
		root        uint16
	}{
		{"nothing heard", func(p, q *port) {}, RoleDesignated, RoleDesignated, false, 0},
		{"disabled", func(p, q *port) { p.infoIs = infoDisabled }, RoleDisabled, RoleDesignated, false, 0},
		{"aged", func(p, q *port) { p.infoIs = infoAged }, RoleDesignated, RoleDesignated, true, 0},
		{"mine, and out of date", func(p, q *port) { p.portPriority.cost = 7 }, RoleDesignated, RoleDesignated, true, 0},
		{"mine, with other times", func(p, q *port) { p.portTimes.maxAge = 7 }, RoleDesignated, RoleDesignated, true, 0},
		{"the root is heard", func(p, q *port) { received(p, vector{1, 0, 1, 0x8001}) }, RoleRoot, RoleDesignated, false, 1},
		{"two ways, the cheaper", func(p, q *port) {
			received(p, vector{1, 30000, 2, 0x8001})
			received(q, vector{1, 10000, 3, 0x8001})
		}, RoleAlternate, RoleRoot, false, 2},
		{"two ways, the link's cost decides", func(p, q *port) {
			received(p, vector{1, 10000, 2, 0x8001})
			received(q, vector{1, 10000, 3, 0x8001})
			p.cfg.PathCost, q.cfg.PathCost = 11, 10
		}, RoleAlternate, RoleRoot, false, 2},
		{"two ways, the sender decides", func(p, q *port) {
			received(p, vector{1, 10, 3, 0x8001})
			received(q, vector{1, 10, 2, 0x8001})
		}, RoleAlternate, RoleRoot, false, 2},
		{"two ways, the sender's port decides", func(p, q *port) {
			received(p, vector{1, 10, 2, 0x8002})
			received(q, vector{1, 10, 2, 0x8001})
		}, RoleAlternate, RoleRoot, false, 2},
		{"two ways, the port decides", func(p, q *port) {
			received(p, vector{1, 10, 2, 0x8001})
			received(q, vector{1, 10, 2, 0x8001})
		}, RoleRoot, RoleAlternate, false, 1},
		{"cost does not wrap round", func(p, q *port) {
			received(p, vector{1, ^uint32(0), 2, 0x8001})
			received(q, vector{1, 10, 3, 0x8001})
		}, RoleDesignated, RoleRoot, true, 2},
		{"a worse one is heard", func(p, q *port) { received(p, vector{^BridgeID(0), 0, ^BridgeID(0), 0x8001}) }, RoleDesignated, RoleDesignated, true, 0},
		{"itself by another port", func(p, q *port) { received(q, p.designatedPriority) }, RoleDesignated, RoleBackup, false, 0},
		{"news of itself as root before", func(p, q *port) { received(p, vector{p.b.id & (1<<48 - 1), 5, 2, 0x8001}) }, RoleAlternate, RoleDesignated, false, 0},
		{"root guard", func(p, q *port) {
			received(p, vector{1, 0, 1, 0x8001})
			p.cfg.RootGuard = true
		}, RoleAlternate, RoleDesignated, false, 0},
	} {
		b, _ := twoPorts(t)
		p, q := b.ports[0], b.ports[1]
		row.set(p, q)
		p.recompute()
		if !b.roleSelection() || p.reselect || !p.selected {
			t.Errorf("%s: roles were not selected", row.name)
		}
		if p.selectedRole != row.role || q.selectedRole != row.other || p.updtInfo != row.updt || b.rootPort != row.root {
			t.Errorf("%s: %v and %v, updtInfo %v, root port %v", row.name, p.selectedRole, q.selectedRole, p.updtInfo, b.rootPort)
		}
		if root := b.port(row.root); root != nil {
			if want := (times{2, 21, 2, 16}); p.designatedTimes != want {
				t.Errorf("%s: tells of the times %+v, want %+v", row.name, p.designatedTimes, want)
			}
			want := root.portPriority.via(root.cfg.cost())
			if p.designatedPriority != (vector{want.root, want.cost, b.id, p.id}) {
				t.Errorf("%s: tells of %+v", row.name, p.designatedPriority)
			}
		}
		if b.roleSelection() {
			t.Errorf("%s: roles were selected twice", row.name)
		}
	}
}

// in brings a port to a state of Port Role Transitions, with nothing left to do.
func in(role Role, state transitionsState) func(p *port) {
	return func(p *port) {
		p.role, p.selectedRole, p.transitions = role, role, state
		p.synced, p.agree = true, true
		for _, q := range p.b.ports {
			q.synced, q.sync, q.reRoot, q.rrWhile, q.rbWhile = true, false, false, 0, 0
		}
		switch role {
		case RoleDisabled:
			p.fdWhile = 20
		case RoleRoot:
			p.forward, p.learn, p.rrWhile, p.fdWhile, p.state = true, true, 15, 0, Forwarding
		case RoleDesignated:
			p.forward, p.learn, p.fdWhile, p.agreed, p.state = true, true, 0, true, Forwarding
		case RoleAlternate, RoleBackup:
			p.fdWhile = p.forwardDelay()
			if role == RoleBackup {
				p.rbWhile = 4
			}
		}
	}
}

func other(p *port) *port { return p.b.ports[1] }

func TestPortRoleTransitionsDisabled17_29_1(t *testing.T) {
	disabled := func(p *port) bool {
		return p.transitions == disabledPort && p.fdWhile == 20 && p.synced && p.rrWhile == 0 && !p.sync && !p.reRoot
	}
	b, _ := twoPorts(t)
	p := b.ports[0]
	if p.enterInitPort(); p.transitions != disablePort || p.role != RoleDisabled || p.learn || p.forward || p.synced || !p.sync || !p.reRoot ||
		p.rrWhile != 15 || p.fdWhile != 20 || p.rbWhile != 0 {
		t.Errorf("INIT_PORT led to %+v", *p)
	}
	check(t, (*port).roleTransitions, in(RoleDesignated, designatedPort), []transition{
		{"any to DISABLE_PORT", func(p *port) { p.selectedRole = RoleDisabled }, false,
			func(p *port) bool {
				return p.transitions == disablePort && p.role == RoleDisabled && !p.learn && !p.forward
			}},
	})
	check(t, (*port).roleTransitions, in(RoleDisabled, disablePort), []transition{
		{"DISABLE_PORT to DISABLED_PORT", func(p *port) { p.rrWhile, p.sync = 3, true }, false, disabled},
		{"DISABLE_PORT: forwards still", func(p *port) { p.state = Forwarding }, true, func(p *port) bool { return p.transitions == disablePort }},
		{"not selected", func(p *port) { p.selected = false }, true, func(p *port) bool { return p.transitions == disablePort }},
		{"updtInfo", func(p *port) { p.updtInfo = true }, true, func(p *port) bool { return p.transitions == disablePort }},
	})
	check(t, (*port).roleTransitions, in(RoleDisabled, disabledPort), []transition{
		{"DISABLED_PORT: fdWhile", func(p *port) { p.fdWhile = 19 }, false, disabled},
		{"DISABLED_PORT: sync", func(p *port) { p.sync = true }, false, disabled},
		{"DISABLED_PORT: reRoot", func(p *port) { p.reRoot = true }, false, disabled},
		{"DISABLED_PORT: not synced", func(p *port) { p.synced = false }, false, disabled},
		{"DISABLED_PORT", none, true, disabled},
	})
}

func TestPortRoleTransitionsRoot17_29_2(t *testing.T) {
	check(t, (*port).roleTransitions, in(RoleAlternate, alternatePort), []transition{
		{"any to ROOT_PORT", func(p *port) { p.selectedRole = RoleRoot }, false,
			func(p *port) bool { return p.transitions == rootPort && p.role == RoleRoot && p.rrWhile == 15 }},
	})
	check(t, (*port).roleTransitions, in(RoleRoot, rootPort), []transition{
		{"ROOT_PORT", none, true, func(p *port) bool { return p.forward && p.agree }},
		{"ROOT_PORT: rrWhile", func(p *port) { p.rrWhile = 14 }, false, func(p *port) bool { return p.rrWhile == 15 }},
		{"ROOT_PROPOSED", func(p *port) { p.proposed, p.agree, other(p).synced = true, false, false }, false,
			func(p *port) bool { return !p.proposed && !p.agree && p.sync && other(p).sync }},
		{"ROOT_AGREED: all synced", func(p *port) { p.agree, p.sync, p.newInfo = false, true, false }, false,
			func(p *port) bool { return p.agree && !p.sync && p.newInfo }},
		{"ROOT_AGREED: again", func(p *port) { p.proposed, p.newInfo = true, false }, false,
			func(p *port) bool { return !p.proposed && p.newInfo && !other(p).sync }},
		{"not agreed: other not synced", func(p *port) { p.agree, other(p).synced = false, false }, true, func(p *port) bool { return !p.agree }},
		{"not agreed: other not selected", func(p *port) { p.agree, other(p).selected = false, false }, true, func(p *port) bool { return !p.agree }},
		{"not agreed: other out of date", func(p *port) { p.agree, other(p).updtInfo = false, true }, true, func(p *port) bool { return !p.agree }},
		{"not agreed: other has no role yet", func(p *port) { p.agree, other(p).selectedRole = false, RoleAlternate }, true,
			func(p *port) bool { return !p.agree }},
		{"REROOT", func(p *port) { p.forward, p.learn, p.fdWhile = false, false, 9 }, false,
			func(p *port) bool { return p.reRoot && other(p).reRoot && !p.learn }},
		{"ROOT_LEARN: rerooted", func(p *port) { p.forward, p.learn, p.fdWhile, p.reRoot = false, false, 9, true }, false,
			func(p *port) bool { return p.learn && !p.forward && p.fdWhile == 2 }},
		{"ROOT_LEARN: time, STP", func(p *port) {
			p.forward, p.learn, p.reRoot, p.sendRSTP, other(p).rrWhile = false, false, true, false, 1
		}, false, func(p *port) bool { return p.learn && !p.forward && p.fdWhile == 15 }},
		{"not rerooted", func(p *port) { p.forward, p.learn, p.fdWhile, p.reRoot, other(p).rrWhile = false, false, 9, true, 1 }, true,
			func(p *port) bool { return !p.learn }},
		{"not rerooted: was backup", func(p *port) { p.forward, p.learn, p.fdWhile, p.reRoot, p.rbWhile = false, false, 9, true, 1 }, true,
			func(p *port) bool { return !p.learn }},
		{"ROOT_FORWARD", func(p *port) { p.forward, p.fdWhile, p.reRoot = false, 2, true }, false,
			func(p *port) bool { return p.forward && p.fdWhile == 0 }},
		{"REROOTED", func(p *port) { p.reRoot = true }, false, func(p *port) bool { return !p.reRoot }},
	})
}

func TestPortRoleTransitionsDesignated17_29_3(t *testing.T) {
	check(t, (*port).roleTransitions, in(RoleRoot, rootPort), []transition{
		{"any to DESIGNATED_PORT", func(p *port) { p.selectedRole = RoleDesignated }, false,
			func(p *port) bool { return p.transitions == designatedPort && p.role == RoleDesignated && p.forward }},
	})
	discarding := func(p *port) {
		p.forward, p.learn, p.agreed, p.fdWhile, p.proposing, p.state = false, false, false, 9, true, Discarding
	}
	discarded := func(p *port) bool { return !p.forward && !p.learn && !p.disputed && p.fdWhile == 2 }
	check(t, (*port).roleTransitions, in(RoleDesignated, designatedPort), []transition{
		{"DESIGNATED_PORT", none, true, func(p *port) bool { return p.forward }},
		{"DESIGNATED_PROPOSE", func(p *port) { discarding(p); p.proposing, p.newInfo = false, false }, false,
			func(p *port) bool { return p.proposing && p.newInfo && p.edgeDelayWhile == 3 }},
		{"DESIGNATED_PROPOSE: shared", func(p *port) { discarding(p); p.proposing, p.cfg.Shared = false, true }, false,
			func(p *port) bool { return p.proposing && p.edgeDelayWhile == 20 }},
		{"nothing to propose to an edge", func(p *port) { discarding(p); p.proposing, p.operEdge, p.sync = false, true, true; p.synced = true }, false,
			func(p *port) bool { return !p.proposing }},
		{"DESIGNATED_SYNCED: discards", func(p *port) { discarding(p); p.synced, p.sync, p.rrWhile = false, true, 3 }, false,
			func(p *port) bool { return p.synced && !p.sync && p.rrWhile == 0 }},
		{"DESIGNATED_SYNCED: agreed", func(p *port) { p.synced = false }, false, func(p *port) bool { return p.synced && p.forward }},
		{"DESIGNATED_SYNCED: edge", func(p *port) { p.synced, p.agreed, p.operEdge, p.sync = false, false, true, true }, false,
			func(p *port) bool { return p.synced && !p.sync && p.forward }},
		{"DESIGNATED_SYNCED: is already", func(p *port) { p.sync = true }, false, func(p *port) bool { return !p.sync && p.forward }},
		{"DESIGNATED_RETIRED", func(p *port) { p.reRoot = true }, false, func(p *port) bool { return !p.reRoot && p.forward }},
		{"DESIGNATED_LEARN: agreed", func(p *port) { discarding(p); p.agreed = true }, false, func(p *port) bool { return p.learn && p.fdWhile == 2 }},
		{"DESIGNATED_LEARN: time, STP", func(p *port) { discarding(p); p.fdWhile, p.sendRSTP = 0, false }, false,
			func(p *port) bool { return p.learn && p.fdWhile == 15 }},
		{"DESIGNATED_LEARN: edge", func(p *port) { discarding(p); p.operEdge = true }, false, func(p *port) bool { return p.learn }},
		{"too early", discarding, true, func(p *port) bool { return !p.learn }},
		{"a port was root a short time ago", func(p *port) { discarding(p); p.fdWhile, p.reRoot, p.rrWhile = 0, true, 1 }, true,
			func(p *port) bool { return !p.learn }},
		{"DESIGNATED_LEARN: it was root a short time ago itself", func(p *port) { discarding(p); p.fdWhile, p.rrWhile = 0, 1 }, false,
			func(p *port) bool { return p.learn }},
		{"DESIGNATED_FORWARD", func(p *port) { p.forward, p.agreed, p.proposing = false, false, true }, false,
			func(p *port) bool { return p.forward && p.agreed && p.fdWhile == 0 }},
		{"DESIGNATED_FORWARD: STP", func(p *port) { p.forward, p.agreed, p.proposing, p.sendRSTP = false, false, true, false }, false,
			func(p *port) bool { return p.forward && !p.agreed }},
		{"DESIGNATED_DISCARD: sync", func(p *port) { p.sync, p.synced, p.agreed = true, false, false }, false, discarded},
		{"DESIGNATED_DISCARD: was root", func(p *port) { p.reRoot, p.rrWhile = true, 1 }, false, discarded},
		{"DESIGNATED_DISCARD: disputed", func(p *port) { p.disputed, p.agreed = true, false }, false, discarded},
		{"DESIGNATED_DISCARD: STP", func(p *port) { p.disputed, p.agreed, p.sendRSTP = true, false, false }, false,
			func(p *port) bool { return !p.forward && p.fdWhile == 15 }},
		{"an edge does not discard", func(p *port) { p.disputed, p.operEdge = true, true }, true, func(p *port) bool { return p.forward }},
	})
}

func TestPortRoleTransitionsAlternateBackup17_29_4(t *testing.T) {
	rested := func(p *port) bool {
		return p.transitions == alternatePort && p.fdWhile == p.forwardDelay() && p.synced && p.rrWhile == 0 && !p.sync && !p.reRoot
	}
	blocked := func(p *port) bool {
		return p.transitions == blockPort && p.role == p.selectedRole && !p.learn && !p.forward
	}
	check(t, (*port).roleTransitions, in(RoleDesignated, designatedPort), []transition{
		{"any to BLOCK_PORT: alternate", func(p *port) { p.selectedRole = RoleAlternate }, false, blocked},
		{"any to BLOCK_PORT: backup", func(p *port) { p.selectedRole = RoleBackup }, false, blocked},
	})
	check(t, (*port).roleTransitions, in(RoleAlternate, blockPort), []transition{
		{"BLOCK_PORT to ALTERNATE_PORT", func(p *port) { p.synced, p.sync, p.reRoot, p.rrWhile = false, true, true, 1 }, false, rested},
		{"BLOCK_PORT: forwards still", func(p *port) { p.state = Forwarding }, true, func(p *port) bool { return p.transitions == blockPort }},
	})
	check(t, (*port).roleTransitions, in(RoleAlternate, alternatePort), []transition{
		{"ALTERNATE_PORT", none, true, rested},
		{"ALTERNATE_PORT: fdWhile", func(p *port) { p.fdWhile = 1 }, false, rested},
		{"ALTERNATE_PORT: STP", func(p *port) { p.sendRSTP = false }, false, func(p *port) bool { return rested(p) && p.fdWhile == 15 }},
		{"ALTERNATE_PORT: sync", func(p *port) { p.sync = true }, false, rested},
		{"ALTERNATE_PORT: reRoot", func(p *port) { p.reRoot = true }, false, rested},
		{"ALTERNATE_PORT: not synced", func(p *port) { p.synced = false }, false, rested},
		{"ALTERNATE_PROPOSED", func(p *port) { p.proposed, p.agree = true, false }, false,
			func(p *port) bool { return rested(p) && !p.proposed && other(p).sync }},
		{"ALTERNATE_AGREED: all synced", func(p *port) { p.agree, p.newInfo = false, false }, false,
			func(p *port) bool { return p.agree && p.newInfo }},
		{"ALTERNATE_AGREED: again", func(p *port) { p.proposed, p.newInfo = true, false }, false,
			func(p *port) bool { return !p.proposed && p.newInfo && !other(p).sync }},
		{"not agreed: other not synced", func(p *port) { p.agree, other(p).synced = false, false }, true, func(p *port) bool { return !p.agree }},
		{"to backup", func(p *port) { p.selectedRole = RoleBackup }, false, blocked},
	})
	check(t, (*port).roleTransitions, in(RoleBackup, alternatePort), []transition{
		{"BACKUP_PORT", func(p *port) { p.rbWhile = 3 }, false, func(p *port) bool { return rested(p) && p.rbWhile == 4 }},
		{"ALTERNATE_PORT as backup", none, true, rested},
	})
}

func TestPortStateTransition17_30(t *testing.T) {
	is := func(s State) func(p *port) bool {
		return func(p *port) bool { return p.state == s && p.b.act.(*recorder).states[1] == s }
	}
	check(t, (*port).stateTransition, func(p *port) { p.enterState(Discarding) }, []transition{
		{"DISCARDING", func(p *port) { p.forward = true }, true, is(Discarding)},
		{"DISCARDING to LEARNING", func(p *port) { p.learn, p.forward = true, true }, false, is(Learning)},
	})
	check(t, (*port).stateTransition, func(p *port) { p.enterState(Learning); p.learn = true }, []transition{
		{"LEARNING", none, true, is(Learning)},
		{"LEARNING to FORWARDING", func(p *port) { p.forward = true }, false, is(Forwarding)},
		{"LEARNING to DISCARDING", func(p *port) { p.learn = false }, false, is(Discarding)},
	})
	check(t, (*port).stateTransition, func(p *port) { p.enterState(Forwarding); p.learn, p.forward = true, true }, []transition{
		{"FORWARDING", none, true, is(Forwarding)},
		{"FORWARDING to DISCARDING", func(p *port) { p.forward = false }, false, is(Discarding)},
	})
}

func TestTopologyChange17_31(t *testing.T) {
	quiet := func(p *port) {
		p.learn, p.forward, p.tcWhile, p.newInfo = true, true, 0, false
		for _, q := range p.b.ports {
			q.tcProp = false
		}
		p.b.act.(*recorder).flushed = nil
	}
	state := func(s topologyState) func(p *port) { return func(p *port) { quiet(p); p.topology = s } }
	learning := func(p *port) bool {
		return p.topology == topologyLearning && !p.rcvdTc && !p.rcvdTcn && !p.rcvdTcAck && !p.tcProp
	}
	flushed := func(p *port) bool {
		return len(p.b.act.(*recorder).flushed) == 1 && p.b.act.(*recorder).flushed[0] == 1
	}
	check(t, (*port).topologyChange, state(topologyInactive), []transition{
		{"INACTIVE to LEARNING", func(p *port) { p.rcvdTc, p.tcProp = true, true }, false, learning},
		{"INACTIVE", func(p *port) { p.learn = false }, true, func(p *port) bool { return p.topology == topologyInactive }},
	})
	check(t, (*port).topologyChange, state(topologyLearning), []transition{
		{"LEARNING to DETECTED", none, false, func(p *port) bool {
			return p.topology == topologyActive && p.tcWhile == 3 && p.newInfo && other(p).tcProp && !p.tcProp && p.b.changes == 1
		}},
		{"LEARNING to DETECTED: STP", func(p *port) { p.sendRSTP = false }, false,
			func(p *port) bool { return p.tcWhile == 35 && p.newInfo }},
		{"LEARNING: an edge", func(p *port) { p.operEdge = true }, true, learning},
		{"LEARNING: does not forward", func(p *port) { p.forward = false }, true, learning},
		{"LEARNING to itself: rcvdTc", func(p *port) { p.forward, p.rcvdTc = false, true }, false, learning},
		{"LEARNING to itself: rcvdTcn", func(p *port) { p.forward, p.rcvdTcn = false, true }, false, learning},
		{"LEARNING to itself: rcvdTcAck", func(p *port) { p.forward, p.rcvdTcAck = false, true }, false, learning},
		{"LEARNING to itself: tcProp", func(p *port) { p.forward, p.tcProp = false, true }, false, learning},
		{"LEARNING to INACTIVE", func(p *port) { p.role, p.learn, p.forward, p.tcAck = RoleAlternate, false, false, true }, false,
			func(p *port) bool { return p.topology == topologyInactive && flushed(p) && p.tcWhile == 0 && !p.tcAck }},
		{"LEARNING: alternate, learns still", func(p *port) { p.role, p.forward = RoleAlternate, false }, true, learning},
	})
	check(t, (*port).topologyChange, state(topologyActive), []transition{
		{"ACTIVE", none, true, func(p *port) bool { return p.topology == topologyActive }},
		{"ACTIVE to LEARNING: role", func(p *port) { p.role = RoleBackup }, false, learning},
		{"ACTIVE to LEARNING: edge", func(p *port) { p.operEdge = true }, false, learning},
		{"NOTIFIED_TCN, NOTIFIED_TC", func(p *port) { p.rcvdTcn = true }, false, func(p *port) bool {
			return !p.rcvdTcn && p.tcWhile == 3 && p.tcAck && other(p).tcProp && !p.tcProp
		}},
		{"NOTIFIED_TC: designated", func(p *port) { p.rcvdTc = true }, false, func(p *port) bool {
			return !p.rcvdTc && p.tcWhile == 0 && p.tcAck && other(p).tcProp && p.topology == topologyActive
		}},
		{"NOTIFIED_TC: root", func(p *port) { p.rcvdTc, p.role = true, RoleRoot }, false, func(p *port) bool { return !p.tcAck && other(p).tcProp }},
		{"PROPAGATING", func(p *port) { p.tcProp = true }, false,
			func(p *port) bool { return !p.tcProp && p.tcWhile == 3 && p.newInfo && flushed(p) }},
		{"PROPAGATING: told already", func(p *port) { p.tcProp, p.tcWhile = true, 1 }, false, func(p *port) bool { return p.tcWhile == 1 && !p.newInfo }},
		{"ACKNOWLEDGED", func(p *port) { p.rcvdTcAck, p.tcWhile = true, 30 }, false, func(p *port) bool { return !p.rcvdTcAck && p.tcWhile == 0 }},
	})
}

// A neighbour that reports topology changes without end has the other ports forget their stations
// once a second, after a burst; the last report is not lost. Another neighbour's counts at once.
func TestTopologyStorm(t *testing.T) {
	b, r := twoPorts(t)
	for range 60 { // until both ports forward
		b.Tick()
	}
	var buf [FrameLen]byte
	storm := func(by uint16) {
		tcn := BPDU{Type: TypeTCN}
		for range 1000 {
			b.Receive(by, tcn.Put(&buf, [6]byte{2}))
		}
	}
	flushed := func(f func()) (n int) {
		r.flushed = nil
		f()
		for _, p := range r.flushed {
			if p == 2 {
				n++
			}
		}
		return n
	}
	if n := flushed(func() { storm(1) }); n != tcBurst {
		t.Errorf("%d reports at once flush %d times, want %d", 1000, n, tcBurst)
	}
	for range 3 {
		if n := flushed(func() { b.Tick(); storm(1) }); n != 1 {
			t.Errorf("further reports flush %d times a second", n)
		}
	}
	if n := flushed(b.Tick); n != 1 {
		t.Errorf("the last report flushes %d times", n)
	}
	r.flushed = nil
	if storm(2); len(r.flushed) == 0 || r.flushed[0] != 1 {
		t.Errorf("another neighbour's report flushes %v", r.flushed)
	}
	for range tcBurst {
		b.Tick()
	}
	if n := flushed(func() { storm(1) }); n != tcBurst {
		t.Errorf("after a silence, reports flush %d times", n)
	}
}
