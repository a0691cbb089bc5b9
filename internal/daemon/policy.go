package daemon

import (
	"fmt"
	"slices"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// configOf converts a policy that Check accepts to the forwarding core's configuration. What
// it leaves out is for the protocols: spanning tree and multicast snooping.
func configOf(p *port.Policy) vswitch.PortConfig {
	return vswitch.PortConfig{
		VLAN:          p.VLAN,
		Isolated:      p.Isolated,
		Locked:        p.Locked,
		NoLearning:    bool(p.NoLearning),
		NoFlood:       classesOf(p.NoFlood),
		LearnLimit:    p.LearnLimit,
		LearnAction:   learnActions[p.LearnAction],
		Storm:         vswitch.StormRates{Broadcast: p.StormBroadcast, Multicast: p.StormMulticast, UnknownUnicast: p.StormUnicast},
		StormShutdown: p.StormAction == port.StormShutdown,
		Police:        p.RateIn,
		PoliceBurst:   time.Duration(p.Burst),
		Shape:         p.RateOut,
	}
}

var (
	learnActions = map[port.LearnAction]vswitch.LearnAction{
		"": vswitch.LearnForward, "forward": vswitch.LearnForward,
		"protect": vswitch.LearnProtect, "shutdown": vswitch.LearnShutdown,
	}
	floodClasses = map[string]vswitch.Class{
		"broadcast": vswitch.Broadcast, "multicast": vswitch.Multicast, "unicast": vswitch.UnknownUnicast,
	}
)

func classesOf(names []string) (c vswitch.Class) {
	for _, name := range names {
		c |= floodClasses[name]
	}
	return c
}

// apply brings the port in the core in line with its spec.
func (p *managed) apply() error {
	c := configOf(&p.spec.Policy)
	c.Tunnel = p.Kind().Tunnel
	p.shaping.configure(&c)
	return p.sw.Configure(c)
}

// vlanOf returns how a port takes part in VLANs, as users see it, with the mode's defaults
// filled in.
func vlanOf(p *port.Policy) api.VLAN {
	v := api.VLAN{Mode: "transparent", Trunk: []uint16{}, Accept: string(p.Accept)}
	byMode := "all"
	switch {
	case p.Access != 0:
		v.Mode, v.Access, v.TPID, byMode = "access", p.Access, "0x8100", "untagged"
	case p.QinQ != 0:
		v.Mode, v.QinQ = "qinq", p.QinQ
	case p.Trunk.Len() > 0:
		v.Mode, v.Native, v.TPID = "trunk", p.Native, "0x8100"
		if p.TrunkTPID != 0 {
			v.TPID = fmt.Sprintf("%#04x", p.TrunkTPID)
		}
		if p.Native == 0 {
			byMode = "tagged"
		}
		v.Trunk = slices.AppendSeq(v.Trunk, p.Trunk.All())
	default:
		v.Native = port.DefaultVLAN
	}
	if v.Accept == "" || v.Accept == "all" && byMode == "tagged" {
		v.Accept = byMode
	}
	return v
}

// vlans returns the VLANs that a port carries.
func (p *managed) vlans() port.VLANSet { v := p.sw.Config().VLAN; return v.Carried() }
