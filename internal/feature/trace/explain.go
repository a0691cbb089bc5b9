package trace

import (
	"fmt"
	"strings"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// stageOf returns the stage that drops frames for a reason: "" for none.
func stageOf(why port.Drop, hasVLAN bool, in feature.Port) string {
	switch why {
	case port.DropNone:
		return ""
	case port.DropRunt, port.DropPortDown:
		return "in"
	case port.DropVLANTagged, port.DropVLANUntagged:
		return "vlan"
	case port.DropVLANFiltered:
		if !hasVLAN {
			return "vlan"
		}
		return "out"
	case port.DropBlocked:
		if in.Core().Tree() != vswitch.TreeForwarding {
			return "learn"
		}
		return "out"
	case port.DropLocked, port.DropLearnLimit:
		return "learn"
	case port.DropSamePort, port.DropNoDestination, port.DropLocal, port.DropIsolated, port.DropMirrorTarget,
		port.DropStormBroadcast, port.DropStormMulticast, port.DropStormUnicast:
		return "out"
	}
	if why.ByGuard() {
		return "guard"
	}
	return "check"
}

// dropped ends the account at a stage: the frame is dropped at a port.
func (a *account) dropped(stage, subject string, at feature.Port) {
	why := a.trace.Drop
	words, remedy := a.explain(at, why)
	a.step(stage, subject, "DROPPED %v: %s", why, words)
	if a.trace.Fast == vswitch.FastDropped {
		a.step("kernel", a.in.Name(), "dropped by the fast path")
	}
	a.Reason, a.Remedy = why.String(), remedy
	a.Verdict = "not delivered"
	if remedy != "" {
		a.Verdict += ". " + remedy
	}
}

// explain says what made a port drop the frame, and what would let it pass.
func (a *account) explain(at feature.Port, why port.Drop) (words, remedy string) {
	p, name := at.Policy(), at.Name()
	set := func(format string, args ...any) string {
		return fmt.Sprintf("`vswitch set-port "+format+"` would let it pass", args...)
	}
	if words := a.host.Why(at, why); words != "" {
		return words, ""
	}
	words = strings.ReplaceAll(why.Info().Words, "DEV", name)
	if why.ByGuard() {
		return words, "`vswitch guard list " + name + "` shows what it may use"
	}
	switch why {
	case port.DropPortDown:
		return name + " does not pass frames now", "`vswitch ports " + name + "` says why"
	case port.DropIsolated:
		if !p.Isolated || !a.in.Policy().Isolated { // from one tunnel to another
			return words, ""
		}
		return fmt.Sprintf("%s and %s are both isolated", a.in.Name(), name), set("%s --isolated=off", name)
	case port.DropVLANTagged:
		return words + ": " + vlanWords(at), ""
	case port.DropVLANUntagged:
		return words + ": " + vlanWords(at), set("%s --native VID", name)
	case port.DropVLANFiltered:
		carried := at.VLANs()
		if at == a.in {
			return fmt.Sprintf("%s carries VLAN %s, not the frame's", name, &carried), ""
		}
		if a.VLAN != 0 && carried.Has(a.VLAN) {
			return "its second tag would be taken for a VLAN", ""
		}
		return fmt.Sprintf("%s carries VLAN %s, not %d", name, &carried, a.VLAN), ""
	case port.DropLocked:
		src := port.MACFrom(a.wire[6:])
		return "--locked, and the FDB does not have the sender at " + name, fmt.Sprintf("`vswitch fdb add %v %s --vlan %d` would let it pass", src, name, a.VLAN)
	case port.DropLearnLimit:
		return fmt.Sprintf("--learn-limit %d is reached, --learn-action %s", p.LearnLimit, p.LearnAction), set("%s --learn-limit %d", name, p.LearnLimit+1)
	case port.DropPoliced:
		return fmt.Sprintf("more than --rate-in %v now", p.RateIn), ""
	case port.DropStormBroadcast:
		return fmt.Sprintf("more than --storm-broadcast %v now", p.StormBroadcast), ""
	case port.DropStormMulticast:
		return fmt.Sprintf("more than --storm-multicast %v now", p.StormMulticast), ""
	case port.DropStormUnicast:
		return fmt.Sprintf("more than --storm-unicast %v now", p.StormUnicast), ""
	case port.DropSamePort:
		return "its destination is behind the port that it comes by", ""
	case port.DropNoDestination:
		if a.trace.Dest.Known {
			return name + " does not pass frames now", "`vswitch ports " + name + "` says why"
		}
		return words, ""
	case port.DropReserved:
		return words, "`vswitch set --group-forward` can let it pass"
	}
	return words, ""
}

// refusal says why a flooded frame does not leave by a port, and the reason's name.
func (a *account) refusal(p feature.Port, o *vswitch.TraceRefusal) (words, name string) {
	switch {
	case o.NoMember:
		return "nobody behind it joined the group; see `vswitch mdb list`", "no_member"
	case o.NotFlooded:
		return "its --flood leaves out frames of this class", "not_flooded"
	}
	words, _ = a.explain(p, o.Drop)
	return words, o.Drop.String()
}

// describe names a port with its kind.
func describe(p feature.Port) string { return p.Name() + " (" + p.Spec().Kind + ")" }

// vlanWords says how a port takes part in VLANs, as its settings say it.
func vlanWords(p feature.Port) string {
	v := &p.Policy().VLAN
	words := "transparent"
	switch {
	case v.Access != 0:
		words = fmt.Sprintf("access %d", v.Access)
	case v.Trunk.Len() > 0:
		words = "trunk " + v.Trunk.String()
		if v.Native != 0 {
			words += fmt.Sprintf(" native %d", v.Native)
		}
	case v.QinQ != 0:
		words = fmt.Sprintf("qinq %d", v.QinQ)
	}
	if v.Accept != "" {
		words += fmt.Sprintf(" accept %s", v.Accept)
	}
	return words
}
