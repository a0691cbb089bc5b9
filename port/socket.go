package port

import "path/filepath"

// Socket are the settings of kinds whose ports stand on a unix socket.
type Socket struct {
	Path   string `json:"path,omitempty" arg:"PATH" file:"true" default:"SWITCH/NAME.sock beside the control socket" fixed:"true" help:"unix socket"`
	Client bool   `json:"client,omitempty" fixed:"true" help:"connect to the socket; else the switch makes it and listens"`
	Owner  string `json:"owner,omitempty" arg:"USER" default:"root alone" help:"who may open the device or the socket, by name or number"`
	Group  string `json:"group,omitempty" arg:"GROUP" help:"group that may open the device or the socket, by name or number"`
	Mode   string `json:"mode,omitempty" arg:"MODE" default:"0660" help:"mode of the socket, in octal"`
}

// PathOf returns where the socket of the port of that name is: at Path, else in dir, else
// nowhere.
func (s Socket) PathOf(name, dir string) string {
	if s.Path == "" && dir != "" {
		return filepath.Join(dir, name+".sock")
	}
	return s.Path
}

// SameAccess reports whether the same users may open both sockets.
func (s Socket) SameAccess(o Socket) bool {
	return s.Owner == o.Owner && s.Group == o.Group && s.Mode == o.Mode
}
