package main

import (
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/loopguard"
	"github.com/vswitch/vswitch/internal/setting"
)

// features lists the features of this program's switches. To add one, add a line.
var features = []feature.Feature{
	loopguard.Feature,
}

// switchFields returns the settings of a switch.
func switchFields() []setting.Field { return daemon.SettingFields(features) }
